"""Proof after the fact: trains again from one checkpoint to the next and compares the weights bit for bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mlxlab import backend
from mlxlab.config.stored import check_stored_config
from mlxlab.errors import CheckpointUnavailableError, InputNotFoundError

if TYPE_CHECKING:
    from mlxlab.checkpoint.store import Checkpoint
    from mlxlab.training.context import FitContext
    from mlxlab.training.state import StepResult, TrainState


def verify_run(folder: Path, from_start: bool = False) -> Iterator[str]:
    """Verifies a run folder and says line by line what holds.

    Every checkpoint's checksums are computed again. Then each is reached by training from the one before it (the first
    from nothing, with `from_start` or where it is the only one) and compared: weights and optimizer, bit for bit.

    Raises:
        CheckpointUnavailableError: a checkpoint is damaged, or differs from its replay; names the first.
        InputNotFoundError: the folder holds no run with checkpoints.
    """
    backend.prepare()
    from mlxlab.checkpoint.manifest import CorruptCheckpointError
    from mlxlab.checkpoint.store import CheckpointStore, load_checkpoint

    paths = CheckpointStore(folder / "checkpoints").steps()[::-1]
    if not paths:
        raise InputNotFoundError(f"{folder}: no run folder with checkpoints")
    found: list[Checkpoint] = []
    for path in paths:
        try:
            found.append(load_checkpoint(path))
        except CorruptCheckpointError as damage:
            raise CheckpointUnavailableError(f"{path}: {damage}") from None
        yield f"{path.name}: checksums hold"
    starts: list[Checkpoint | None] = [*found[:-1]]
    ends = found[1:]
    if from_start or not starts:
        starts, ends = [None, *starts], found
    for start, end in zip(starts, ends, strict=True):
        different = _first_difference(folder, start, end)
        since = f"step {start.step}" if start else "the start"
        if different:
            raise CheckpointUnavailableError(f"{end.path.name}: {different} is not what training from {since} gives")
        yield f"{end.path.name}: bitwise what training from {since} gives"


def _first_difference(folder: Path, start: "Checkpoint | None", end: "Checkpoint") -> str:
    """The first array that differs between `end` and the replay from `start`; "" if none does."""
    import numpy as np

    from mlxlab.training.checkpointer import saved_arrays

    weights, optimizer = saved_arrays(_retrain_between(folder, start, end))
    for title, ours, theirs in (("model", weights, end.weights), ("optimizer", optimizer, end.optimizer)):
        for name in sorted({*ours, *theirs}):
            if name not in ours or name not in theirs:
                return f"{title} {name}"
            a, b = np.array(ours[name]), np.array(theirs[name])
            if a.dtype != b.dtype or a.tobytes() != b.tobytes():
                return f"{title} {name}"
    return ""


def _retrain_between(folder: Path, start: "Checkpoint | None", end: "Checkpoint") -> "TrainState":
    """The state at the step of `end`, trained with its config from the state of `start`."""
    from mlxlab.experiment.build import build_session

    cfg = check_stored_config(end.state["metadata"]["config"], str(end.path))
    session = build_session(cfg, folder, inference_dir=folder / "inference", initialize=start is None)
    return session.fit(session.init_state(), [_StopAt(end.step)], checkpoint=start)


class _StopAt:
    """A callback that ends training after a step."""

    runs_on_all_ranks = True

    def __init__(self, step: int) -> None:
        self.step = step

    def on_start(self, context: "FitContext", state: "TrainState") -> None: ...

    def on_step(self, context: "FitContext", state: "TrainState", result: "StepResult") -> None:
        if state.progress.step >= self.step:
            context.control.stop_reason = "verified"

    def on_end(self, context: "FitContext", state: "TrainState") -> None: ...
