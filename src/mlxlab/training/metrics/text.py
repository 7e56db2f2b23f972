"""Bits per byte of language models."""

import math
from dataclasses import dataclass

import numpy as np

from mlxlab.data.batch import Batch


@dataclass
class TextTotals:
    """The bytes of the targets of evaluation batches.

    Args:
        token_bytes: (V,) bytes of each token; empty where they are not known.
    """

    token_bytes: np.ndarray
    bytes: float = 0.0

    def add(self, batch: Batch) -> None:
        """Adds the targets of a batch."""
        if len(self.token_bytes):
            self.bytes += float((self.token_bytes[batch.targets] * batch.loss_weights).sum())

    def metrics(self, total: float) -> dict[str, float]:
        """The metric, given the sum of losses in nats; none where the bytes are not known."""
        return {"bits_per_byte": total / math.log(2) / self.bytes} if self.bytes else {}
