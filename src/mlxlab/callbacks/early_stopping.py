"""Stops a run that no longer improves, and pauses one of a sweep where the sweeper says."""

from dataclasses import dataclass

from mlxlab.callbacks.mixture import mixed_head
from mlxlab.checkpoint.store import Checkpoint
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import NonNegative, Size
from mlxlab.schema.metric_names import is_better
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import NO_STEP, StepResult, TrainState
from mlxlab.training.stop_rule import StopRule


@dataclass
class EarlyStopping(Callback):
    """Stops once the best value of the monitored metric is `patience` evaluations old. The best checkpoint is kept.

    Args:
        patience: evaluations without an improvement; null never stops.
        min_delta: minimum change that counts as an improvement.
    """

    patience: Size | None
    min_delta: NonNegative
    runs_on_all_ranks = True

    def check(self, state: TrainState, checkpoint: Checkpoint | None) -> None:
        if self.patience is not None and mixed_head(state) is not None:
            expected = "expected null, or model.folds=1: the mixture of model=tabular is fitted in the last step"
            raise ConfigError(f"callbacks.early_stopping.patience={self.patience}: {expected}")

    def on_start(self, context: FitContext, state: TrainState) -> None:
        self.on_step(context, state, NO_STEP)

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        # Derived from the history: there is no counter that a resume could lose.
        if self.patience is None or context.control.stop_reason:
            return
        best = None
        age = 0
        monitor = context.monitor
        for _, value in state.history.evaluations:
            age += 1
            if is_better(monitor, value, best, self.min_delta):
                best = value
                age = 0
        if age >= self.patience:
            context.control.stop_reason = (
                f"early: no better {monitor} in {self.patience} evaluations"
            )


@dataclass
class Pruning(Callback):
    """Pauses a run of a sweep at its rung: the first evaluation from `pause_at` on.

    Derived from the state: a run that is resumed where it was paused pauses again.
    """

    rule: StopRule
    runs_on_all_ranks = True

    def on_start(self, context: FitContext, state: TrainState) -> None:
        self.on_step(context, state, NO_STEP)

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        evaluations = state.history.evaluations
        step = state.progress.step
        pause_at = self.rule["pause_at"]
        if context.control.stop_reason or pause_at is None:
            return
        is_evaluated = step > 0 and len(evaluations) > 0 and evaluations[-1][0] == step
        budget = step
        if self.rule["unit"] == "epochs":
            budget = state.data.epoch
        if is_evaluated and budget >= pause_at:
            context.control.stop_reason = f"paused: at {budget} {self.rule['unit']}"
