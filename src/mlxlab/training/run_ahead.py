"""Decides whether the next step starts before this one is finished, so that a GPU does not wait for the host."""

from collections.abc import Iterable
from typing import Literal

import mlx.core as mx

from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.checkpointer import Checkpointer, NoCheckpointer
from mlxlab.training.state import TrainState
from mlxlab.training.steps.step import AsyncStep, Step
from mlxlab.training.trainer import Trainer

AsyncSteps = Literal["auto", "always", "never"]


def runs_ahead(mode: AsyncSteps, step: Step, processes: int) -> bool:
    """Whether steps may overlap at all: in one process, whose requests no other one has to agree with."""
    wanted = mode == "always" or (mode == "auto" and mx.default_device() == mx.Device(mx.gpu))
    return wanted and processes == 1 and isinstance(step, AsyncStep)


def may_start_next(
    trainer: Trainer,
    context: FitContext,
    state: TrainState,
    hooks: Iterable[Callback | Checkpointer | NoCheckpointer],
) -> bool:
    """Whether nothing reads or changes the weights between this step, whose batch is counted, and the next one."""
    progress, control = state.progress, context.control
    if control.stop_reason or control.stop_signal or control.save_requested:
        return False
    if progress.step % trainer.log_every == 0 or trainer.is_done(progress, state.data.epoch):
        return False
    # This step is not read yet: if it may cause a rollback, the next one must not have begun.
    if (
        trainer.evaluation_due(state)
        or progress.consecutive_nonfinite + 1 >= trainer.max_nonfinite_steps
    ):
        return False
    return not any(hook.needs_sync(state) for hook in hooks)
