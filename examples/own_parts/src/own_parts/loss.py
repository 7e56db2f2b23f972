"""The Brier score (Brier 1950) as a loss."""

import mlx.core as mx
import mlx.nn as nn
from mlxlab.constraints import Positive
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.loss import Loss, LossTerms


class Brier(Loss):
    """Squared distance of the predicted probabilities from the one-hot target.

    The step sums the values by the weights of the targets and divides once: it averages nothing.

    Args:
        scale: factor of every value.
    """

    def __init__(self, scale: Positive) -> None:
        self.scale = scale

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        """The loss of every target, float32, shaped like `batch.targets`; the terms are logged."""
        logits = model(batch.tokens, batch.segment_ids).astype(mx.float32)
        p = mx.softmax(logits, axis=-1)  # (..., C)
        true = mx.take_along_axis(p, batch.targets[..., None], axis=-1).squeeze(-1)
        return LossTerms(self.scale * ((p * p).sum(axis=-1) - 2 * true + 1), {"p_true": true})
