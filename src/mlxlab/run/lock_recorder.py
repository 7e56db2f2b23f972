"""Writes `run.lock` during a run: its origin, and the losses at steps with one significant digit."""

import logging
from functools import cached_property
from pathlib import Path

from mlxlab.checkpoint.state import RunMetadata
from mlxlab.errors import UserError
from mlxlab.files.atomic import without_nonfinite, write_json
from mlxlab.past_runs.changes import changed_steps
from mlxlab.past_runs.run_lock import FILE, Losses, RunLock, machine, read_lock, versions
from mlxlab.record.run_record import Training
from mlxlab.run.writer import RunWriter
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

GIT_SECONDS = 3.0

logger = logging.getLogger(__name__)


class RunLockRecorder(Callback):
    """Records a run at steps 1, 2, ..., 9, 10, 20, ..., 100, 200, ... and at its end.

    Args:
        metadata: that of the checkpoints.
        forked_from: path of the checkpoint of another run that this one starts from.
        continues: a run in the folder is resumed: its losses up to the checkpoint stay.
        writer: it knows the commit once git has answered.
        processes: their number; on those other than rank 0 the folder is discarded.
    """

    def __init__(
        self,
        folder: Path,
        metadata: RunMetadata,
        writer: RunWriter,
        processes: int,
        *,
        forked_from: str | None,
        continues: bool,
    ) -> None:
        self.folder = folder
        self.metadata = metadata
        self.writer = writer
        self.forked_from = forked_from
        self.processes = processes
        self.continues = continues
        self.losses: Losses = {}
        self._warned = False

    def on_start(self, context: FitContext, state: TrainState) -> None:
        if not self.continues:
            return
        try:
            earlier = read_lock(self.folder)
        except UserError as error:
            logger.warning(f"{error}; it will lack the losses of earlier steps")
            return
        self.forked_from = earlier["forked_from"]
        self.losses = {
            step: loss
            for step, loss in earlier["losses"].items()
            if int(step) <= state.progress.step
        }

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        step = state.progress.step
        if result.trained and has_one_digit(step):
            loss = None
            if result.weight:
                loss = result.loss / result.weight
            self.losses[str(step)] = loss
            self._write()

    def end(self, outcome: Training) -> None:
        """The run ended, or was stopped and saved."""
        self._lock["outcome"] = {
            "steps": outcome.steps,
            "state": outcome.final_state,
            "objective": outcome.objective,
            "best": outcome.best,
        }
        self._write(wait=GIT_SECONDS)

    def _write(self, wait: float = 0.0) -> None:
        """Replaces the file. A full disk does not end the run."""
        self._lock["code"] = self.writer.code(wait)
        try:
            write_json(self.folder / FILE, without_nonfinite(self._lock))
        except OSError as error:
            if not self._warned:
                logger.warning(f"{self.folder / FILE}: not written: {error.strerror or error}")
            self._warned = True

    @cached_property
    def _lock(self) -> RunLock:
        metadata = self.metadata
        return {
            "format": 1,
            "config": metadata["config"],
            "choices": metadata["choices"],
            "overrides": metadata["overrides"],
            "data": metadata["data"],
            "tokenizer": metadata["tokenizer"],
            "teachers": metadata["teachers"],
            "initial_weights": metadata["initial_weights"],
            "versions": versions(),
            "machine": machine(self.processes),
            "code": self.writer.code(),
            "forked_from": self.forked_from,
            "changed_at": changed_steps(self.folder),
            "losses": self.losses,
        }


def has_one_digit(step: int) -> bool:
    """Whether a step is one of 1 to 9 times a power of ten."""
    return step > 0 and not str(step)[1:].strip("0")
