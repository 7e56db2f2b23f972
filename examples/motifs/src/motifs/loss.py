"""A loss for labels some of which are wrong."""

from typing import Annotated

import mlx.core as mx
import mlx.nn as nn
from annotated_types import Gt, Le
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.loss import Loss, LossTerms


class GeneralisedCrossEntropy(Loss):
    """(1 - p^q) / q of the probability p of the label (Zhang and Sabuncu 2018).

    Args:
        q: near 0 it is the cross-entropy; at 1 the mean absolute error, which is most robust and slowest to learn.
    """

    def __init__(self, q: Annotated[float, Gt(0), Le(1)]) -> None:
        self.q = q

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        """One value per label; the step weighs and averages them."""
        logits = model(batch.tokens, batch.segment_ids).astype(mx.float32)  # (B, C)
        log_p = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        log_p = mx.take_along_axis(log_p, batch.targets[..., None], axis=-1).squeeze(-1)
        return LossTerms((1 - mx.exp(self.q * log_p)) / self.q, {"cross_entropy": -log_p})
