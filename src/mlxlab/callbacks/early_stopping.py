"""Stops a run that no longer improves."""

from mlxlab.constraints import NonNegative, Size
from mlxlab.training.context import FitContext
from mlxlab.training.state import MonitoredMetric, StepResult, TrainState


class EarlyStopping:
    """Stops once the best value of the monitored metric is `patience` evaluations old. The best checkpoint is kept.

    Args:
        patience: evaluations without an improvement; null never stops.
        min_delta: minimum change that counts as an improvement.
    """

    runs_on_all_ranks = True

    def __init__(self, patience: Size | None, min_delta: NonNegative) -> None:
        self.patience = patience
        self.min_delta = min_delta

    def on_start(self, context: FitContext, state: TrainState) -> None:
        self._check(context, state)

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        self._check(context, state)

    def on_end(self, context: FitContext, state: TrainState) -> None: ...

    def _check(self, context: FitContext, state: TrainState) -> None:
        # Derived from the history: there is no counter that a resume could lose.
        if self.patience is None or context.control.stop_reason:
            return
        values = [value for _, value in state.history.evaluations]
        if evaluations_since_best(values, context.monitor, self.min_delta) >= self.patience:
            context.control.stop_reason = f"early: no better {context.monitor.name} in {self.patience} evaluations"


def evaluations_since_best(values: list[float], monitor: MonitoredMetric, min_delta: float) -> int:
    best, age = None, 0
    for value in values:
        if monitor.is_better(value, best, min_delta):
            best, age = value, 0
        else:
            age += 1
    return age
