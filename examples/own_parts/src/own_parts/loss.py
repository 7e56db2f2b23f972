"""The Brier score (Brier 1950) as a loss."""

import mlx.core as mx
from mlxlab.schema.constraints import Positive
from mlxlab.training.losses.loss import LogitLoss


class Brier(LogitLoss):
    """Squared distance of the predicted probabilities from the one-hot target.

    The step sums the values by the weights of the targets and divides once: it averages nothing.

    Args:
        scale: factor of every value.
    """

    def __init__(self, scale: Positive) -> None:
        self.scale = scale

    def of_logits(self, logits: mx.array, targets: mx.array) -> mx.array:
        """Logits (..., C) and targets (...) to losses (...), float32."""
        p = mx.softmax(logits.astype(mx.float32), axis=-1)
        true = mx.take_along_axis(p, targets[..., None], axis=-1).squeeze(-1)
        return self.scale * ((p * p).sum(axis=-1) - 2 * true + 1)
