"""Logs how the tokens served to a language model compare with those of its corpus."""

from mlxlab.data.batch import MeasuresOrder
from mlxlab.metric_names import TOKENS_PER_SEC
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState


class TokenCoverage(Callback):
    """Logs `data/kl_target`, `data/rare_coverage` and others whenever the trainer logs, if the data measures them."""

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        if TOKENS_PER_SEC not in state.history.at(state.progress.step) or not isinstance(state.data, MeasuresOrder):
            return
        metrics = state.data.order_metrics()
        if metrics and not metrics.keys() <= state.history.at(state.progress.step).keys():
            context.log(state, metrics)
