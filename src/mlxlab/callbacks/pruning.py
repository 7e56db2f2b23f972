"""Pauses a run of a sweep at the rung that the sweeper set."""

from dataclasses import dataclass

from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState
from mlxlab.training.stop_rule import StopRule


@dataclass
class Pruning(Callback):
    """Pauses at the first evaluation from `pause_at` on.

    Derived from the state: a run that is resumed where it was paused pauses again.
    """

    rule: StopRule
    runs_on_all_ranks = True

    def on_start(self, context: FitContext, state: TrainState) -> None:
        self._check(context, state)

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        self._check(context, state)

    def _check(self, context: FitContext, state: TrainState) -> None:
        evaluations = state.history.evaluations
        step = state.progress.step
        pause_at = self.rule["pause_at"]
        if context.control.stop_reason or pause_at is None:
            return
        is_evaluated = step > 0 and len(evaluations) > 0 and evaluations[-1][0] == step
        budget = state.data.epoch if self.rule["unit"] == "epochs" else step
        if is_evaluated and budget >= pause_at:
            context.control.stop_reason = f"paused: at {budget} {self.rule['unit']}"
