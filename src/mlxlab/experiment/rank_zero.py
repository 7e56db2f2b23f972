"""One run in several processes: only rank 0 writes the run folder, tracks and prints; the others compute."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from mlxlab.distributed.process_group import ProcessGroup
    from mlxlab.training.callback import Callback
    from mlxlab.training.checkpointer import CheckpointerProtocol


@dataclass(frozen=True)
class RankContext:
    """The processes of a run.

    Attributes:
        run_dir: the run folder, which rank 0 writes.
        broadcast: returns the text of rank 0 on every rank; all ranks must call it.
    """

    group: "ProcessGroup"
    run_dir: Path
    broadcast: Callable[[str], str] = str

    def select_callbacks(self, callbacks: Sequence["Callback"]) -> list["Callback"]:
        """The callbacks of this rank: all on rank 0, elsewhere those that change training."""
        return [callback for callback in callbacks if self.group.rank == 0 or callback.runs_on_all_ranks]

    def select_checkpointer(self, checkpointer: "CheckpointerProtocol") -> "CheckpointerProtocol":
        """The checkpointer on rank 0; elsewhere one that only loads what rank 0 saved."""
        from mlxlab.training.checkpointer import NoCheckpointer

        return checkpointer if self.group.rank == 0 else NoCheckpointer(self.run_dir)

    def check_equal(self, digest: str) -> str:
        """Returns the digest of the final state; asserts that it is the same on all ranks."""
        prefix = int(digest[:7], 16)
        highest, lowest = self.group.all_reduce_max([prefix, -prefix])
        assert highest == -lowest, "the processes of this run ended in different states"
        return digest


@contextmanager
def distributed_context(cfg: DictConfig, run_dir: Path) -> Iterator[tuple[DictConfig, RankContext]]:
    """The processes that were started together, and the config for this one; only rank 0 tracks and prints.

    Raises:
        ConfigError: several processes were started although `trainer.parallel` is none, or their backend cannot do it.
    """
    from mlxlab.distributed.process_group import DataParallel, init_process_group

    group = init_process_group(cfg.trainer.parallel, cfg.trainer.worker_timeout)
    if not isinstance(group, DataParallel):
        yield cfg, RankContext(group, run_dir)
        return
    ranks = RankContext(group, Path(group.broadcast_text(str(run_dir.absolute()))), group.broadcast_text)
    if group.rank == 0:
        yield cfg, ranks
        return
    silent: Any = OmegaConf.to_container(cfg, resolve=True)
    silent["tracking"] = {"_target_": "mlxlab.tracking.tracker.NoTracker"}
    with open(os.devnull, "w") as devnull, redirect_stdout(devnull), redirect_stderr(devnull):
        yield OmegaConf.create(silent), ranks
