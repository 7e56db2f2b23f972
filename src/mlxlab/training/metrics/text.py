"""Metrics of language models apart from the loss: bits per byte, and accuracy on the tokens of a smaller vocabulary."""

import math
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlxlab.data.batch import Batch
from mlxlab.data.vocabulary.vocabulary_map import IS_CORE, RARE_COST, TARGET_BYTES


@dataclass
class TextTotals:
    """Sums over the targets of evaluation batches.

    Args:
        token_bytes: (V,) bytes of each original token; empty where they are not known.
    """

    token_bytes: np.ndarray
    bytes: float = 0.0
    rare_cost: float = (
        0.0  # nats, as the batches say: to choose each rare target among those that share its id
    )
    core: float = 0.0  # targets that are kept in the smaller vocabulary
    correct: float = 0.0  # of those
    has_core: bool = False

    def needs_predictions(self, batch: Batch) -> bool:
        """Whether `add` reads the predicted tokens."""
        return IS_CORE in batch.aux

    def add(self, batch: Batch, predictions: mx.array) -> None:
        """Adds a batch with the most probable token of each of its targets, (B, T)."""
        weights, aux = batch.loss_weights, batch.aux
        if IS_CORE not in aux:
            if len(self.token_bytes):
                self.bytes += float((self.token_bytes[batch.targets] * weights).sum())
            return
        self.has_core = True
        is_core = weights * aux[IS_CORE]
        self.core += float(is_core.sum())
        self.correct += float((is_core * (np.array(predictions) == batch.targets)).sum())
        self.rare_cost += float((aux[RARE_COST].astype(np.float64) * weights).sum())
        if TARGET_BYTES in aux:
            self.bytes += float((aux[TARGET_BYTES].astype(np.float64) * weights).sum())

    def metrics(self, total: float, weight: float) -> dict[str, float]:
        """The metrics, given the sums of losses in nats and of weights; docs/reference/metrics.md defines them."""
        metrics = (
            {"bits_per_byte": (total + self.rare_cost) / math.log(2) / self.bytes}
            if self.bytes
            else {}
        )
        if not self.has_core:
            return metrics
        accuracy, rare_share = (
            self.correct / max(self.core, 1e-9),
            1 - self.core / max(weight, 1e-9),
        )
        return metrics | {"core_accuracy": accuracy, "rare_share": rare_share}
