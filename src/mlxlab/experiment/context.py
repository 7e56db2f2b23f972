"""One run in one or several processes: only rank 0 writes the run folder, tracks and prints; the others compute."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import project_root
from mlxlab.distributed.process_group import ProcessGroup, init_process_group
from mlxlab.experiment.build import Config
from mlxlab.experiment.manifest import RunManifest
from mlxlab.experiment.signals import SignalHandler
from mlxlab.tracking.tracker import NoTracker, Tracker


@dataclass(frozen=True)
class RunContext:
    """The surroundings of a run in one of its processes.

    Attributes:
        run_dir: the folder that this process writes; on rank 0 the run folder, elsewhere one that is discarded.
        shared_dir: the run folder, on every rank.
    """

    run_dir: Path
    shared_dir: Path
    manifest: RunManifest
    signals: SignalHandler
    group: ProcessGroup

    def build_tracker(self, config: Config) -> Tracker:
        if self.group.rank > 0:
            return NoTracker()
        tracker: Tracker = instantiate(config["tracking"], folder=self.run_dir, project=project_root())
        return tracker


@contextmanager
def distributed_context(
    config: Config, run_dir: Path, manifest: RunManifest, signals: SignalHandler
) -> Iterator[RunContext]:
    """The context of this process among those that were started together; only rank 0 prints.

    Raises:
        ConfigError: several processes were started although `trainer.parallel` is none, or their backend cannot do it.
    """
    group = init_process_group(config["trainer"]["parallel"], config["trainer"]["worker_timeout"])
    shared_dir = Path(group.broadcast_text(str(run_dir)))
    context = RunContext(run_dir, shared_dir, manifest, signals, group)
    if group.rank == 0:
        yield context
        return
    with open(os.devnull, "w") as devnull, redirect_stdout(devnull), redirect_stderr(devnull):
        yield context
