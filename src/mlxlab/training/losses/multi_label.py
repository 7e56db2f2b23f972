"""The loss of several labels, each of which holds or not."""

from typing import Literal

import mlx.core as mx

from mlxlab.backend.ops.cross_entropy import binary_cross_entropy
from mlxlab.schema.constraints import Positive, Share
from mlxlab.training.losses.loss import LogitLoss, weights_of


class BinaryCrossEntropyLoss(LogitLoss):
    """Binary cross-entropy of each label, -w y log p - (1 - y) log(1 - p).

    Args:
        positive_weights: w, one per label, by which a label that holds counts; `balanced` is n / (L n_l) of n positives
            in the training rows, n_l of them of the label; null is 1.
        label_smoothing: e, which makes a target y into (1 - e) y + e / 2; in training only.

    Raises:
        ConfigError: the number of weights is not the number of labels.
    """

    def __init__(
        self,
        positive_weights: list[Positive] | Literal["balanced"] | None,
        label_smoothing: Share,
        *,
        class_counts: list[int],
    ) -> None:
        self.positive_weights: mx.array | None = None
        if positive_weights is not None:
            self.positive_weights = weights_of(positive_weights, class_counts, "positive_weights")
        self.label_smoothing = label_smoothing

    def of_logits(self, logits: mx.array, targets: mx.array) -> mx.array:
        return binary_cross_entropy(logits, targets, self.label_smoothing, self.positive_weights)
