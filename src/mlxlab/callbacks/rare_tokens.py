"""Logs how many of the targets of a smaller vocabulary are rare tokens."""

from mlxlab.data.vocabulary.remapping import vocabulary_of
from mlxlab.metric_names import RARE_SHARE, TOKENS_PER_SEC
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState


class RareTokens(Callback):
    """Logs `data/rare_share`, of the targets of the last batch, whenever the trainer logs, with `data.vocabulary`."""

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        logged, vocabulary, batch = state.history.at(state.progress.step), vocabulary_of(state.data), result.batch
        if vocabulary is None or not result.trained or TOKENS_PER_SEC not in logged or RARE_SHARE in logged:
            return
        weight = batch.loss_weights.sum()
        if weight > 0:
            share = float((batch.loss_weights * (batch.targets == vocabulary.rare_id)).sum() / weight)
            context.log(state, {RARE_SHARE: share})
