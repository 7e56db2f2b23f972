"""One run in several processes: the first keeps the run folder, the store and the terminal; the others only compute."""

import os
from collections.abc import Iterator, Sequence
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
    """The processes of a run, and the folder that the first of them keeps."""

    group: "ProcessGroup"
    folder: Path

    def select_callbacks(self, callbacks: Sequence["Callback"]) -> list["Callback"]:
        """The callbacks of this rank: all on rank 0, elsewhere those that change training."""
        return [callback for callback in callbacks if self.group.rank == 0 or callback.runs_on_all_ranks]

    def select_checkpointer(self, checkpointer: "CheckpointerProtocol") -> "CheckpointerProtocol":
        """The checkpointer on rank 0; elsewhere one that only loads what rank 0 saved."""
        from mlxlab.training.checkpointer import NoCheckpointer

        return checkpointer if self.group.rank == 0 else NoCheckpointer(self.folder)

    def agreed(self, state: str) -> str:
        """The hash of the final state, which is to be the same in all processes."""
        part = int(state[:7], 16)
        highest, lowest = self.group.all_reduce_max([part, -part])
        assert highest == -lowest, "the processes of this run ended in different states"
        return state


@contextmanager
def distributed_context(cfg: DictConfig, folder: Path) -> Iterator[tuple[DictConfig, RankContext]]:
    """The processes that were started together, and the config for this one.

    Raises:
        ConfigError: they were started together and `trainer.parallel` does not say so, or their backend cannot do it.
    """
    from mlxlab.distributed.process_group import DataParallel, init_process_group

    group = init_process_group(cfg.trainer.parallel, cfg.trainer.deadline)
    if not isinstance(group, DataParallel):
        yield cfg, RankContext(group, folder)
        return
    first = Path(group.broadcast_text(str(folder)))
    if group.rank == 0:
        yield cfg, RankContext(group, first)
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield _worker_config(cfg, first), RankContext(group, first)


def _worker_config(cfg: DictConfig, first: Path) -> DictConfig:
    """The config of a process that keeps nothing: it resumes from where the first one does."""
    from mlxlab.checkpoint.store import CheckpointStore

    changed: Any = OmegaConf.to_container(cfg, resolve=True)
    changed["tracking"] = {"_target_": "mlxlab.tracking.tracker.NoTracker"}
    checkpoints = first / "checkpoints"
    if cfg.resume == "auto":
        changed["resume"] = str(first) if CheckpointStore(checkpoints).steps() else None
    elif cfg.resume in ("last", "best", "emergency"):
        changed["resume"] = str(checkpoints / cfg.resume)
    return OmegaConf.create(changed)
