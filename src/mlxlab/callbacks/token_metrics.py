"""Logs which tokens a language model is trained on."""

from mlxlab.data.batch import MeasuresOrder, vocabulary_of
from mlxlab.metric_names import RARE_SHARE
from mlxlab.training.callback import Callback
from mlxlab.training.state import StepResult, TrainState


class TokenMetrics(Callback):
    """Logs metrics of the tokens served whenever the trainer logs.

    `data/kl_target`, `data/rare_coverage` and others if the data measures its order, and with `data.vocabulary`
    `data/rare_share` of the targets of the last batch.
    """

    def measure(self, state: TrainState, result: StepResult) -> dict[str, float]:
        metrics = state.data.order_metrics() if isinstance(state.data, MeasuresOrder) else {}
        vocabulary, batch = vocabulary_of(state.data), result.batch
        if vocabulary is not None and result.trained and (weight := batch.loss_weights.sum()) > 0:
            rare = batch.loss_weights * (batch.targets == vocabulary.rare_id)
            metrics = {**metrics, RARE_SHARE: float(rare.sum() / weight)}
        return metrics
