"""Logs which tokens a language model is trained on."""

from mlxlab.training.callback import Callback
from mlxlab.training.state import StepResult, TrainState


class TokenMetrics(Callback):
    """Logs `data/kl_target`, `data/rare_coverage` and others if the data measures its order."""

    def measure(self, state: TrainState, result: StepResult) -> dict[str, float]:
        if not hasattr(state.data, "order_metrics"):
            return {}
        return state.data.order_metrics()
