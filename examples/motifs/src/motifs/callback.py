"""A callback that ends a run which is good enough."""

from mlxlab.schema.metric_names import is_better
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState


class StopAtTarget(Callback):
    """Stops once the metric of `objective` is at least as good as `target`, and logs the step as `motifs/target_step`.

    It derives this from the history, so that a resumed run decides as an uninterrupted one.

    Args:
        target: value of the metric; null never stops.
    """

    runs_on_all_ranks = True  # all processes must stop at the same step

    def __init__(self, target: float | None) -> None:
        self.target = target

    def needs_sync(self, state: TrainState) -> bool:
        return False

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        if self.target is None or context.control.stop_reason or not state.history.evaluations:
            return
        step, value = state.history.evaluations[-1]
        if step == state.progress.step and not is_better(context.monitor, self.target, value, 0.0):
            context.log(state, {"motifs/target_step": float(step)})
            context.control.stop_reason = f"target: {context.monitor} is {value:.4f}"
