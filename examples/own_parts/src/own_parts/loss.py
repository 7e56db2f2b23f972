"""The Brier score (Brier 1950) as a loss."""

import mlx.core as mx
import mlx.nn as nn
from mlxlab.constraints import Positive
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.folds import batch_losses
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
        """The loss of every target, float32, shaped like `batch.targets`; terms are logged."""
        return LossTerms(batch_losses(self.of_logits, model, batch), {})

    def of_logits(self, logits: mx.array, targets: mx.array) -> mx.array:
        """Logits (..., C) and targets (...) to losses (...).

        A function of its own, since `model=tabular` trains several networks at once.
        """
        p = mx.softmax(logits.astype(mx.float32), axis=-1)
        true = mx.take_along_axis(p, targets[..., None], axis=-1).squeeze(-1)
        return self.scale * ((p * p).sum(axis=-1) - 2 * true + 1)
