"""Stops a run of a sweep at the rung that the sweeper set, or because earlier runs were better."""

from mlxlab.metric_names import is_better
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState
from mlxlab.training.stop_rule import StopRule


class Pruning(Callback):
    """Pauses at the first evaluation from `pause_at` on; prunes where the best value is worse than the limit.

    Derived from the state: a run that is resumed where it was paused pauses again.
    """

    runs_on_all_ranks = True

    def __init__(self, rule: StopRule) -> None:
        self.rule = rule

    def on_start(self, context: FitContext, state: TrainState) -> None:
        self._check(context, state)

    def needs_sync(self, state: TrainState) -> bool:
        return False

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        self._check(context, state)

    def _check(self, context: FitContext, state: TrainState) -> None:
        evaluations, step = state.history.evaluations, state.progress.step
        if context.control.stop_reason or not step or not evaluations or evaluations[-1][0] != step:
            return
        budget = state.data.epoch if self.rule["unit"] == "epochs" else step
        pause_at, limits = self.rule["pause_at"], self.rule["limits"]
        if pause_at is not None and budget >= pause_at:
            context.control.stop_reason = f"paused: at {budget} {self.rule['unit']}"
        elif budget >= self.rule["prune_from"] and len(evaluations) <= len(limits):
            limit, best, monitor = limits[len(evaluations) - 1], state.history.best, context.monitor
            if limit is not None and is_better(monitor, limit, best):
                median = f"median {limit:.6g} of earlier trials at evaluation {len(evaluations)}"
                context.control.stop_reason = (
                    f"pruned: best {monitor} {best} is worse than the {median}"
                )
