"""Losses of a regression. Targets are standardised: an error of 1 is a standard deviation of the training rows."""

from dataclasses import dataclass

import mlx.core as mx

from mlxlab.schema.constraints import Positive
from mlxlab.training.losses.loss import LogitLoss


class SquaredErrorLoss(LogitLoss):
    """Squared error of each target."""

    def of_logits(self, logits: mx.array, targets: mx.array) -> mx.array:
        return squared_error(logits, targets)


@dataclass
class HuberLoss(LogitLoss):
    """Huber loss (Huber 1964): e^2 / 2 for errors up to delta, delta (|e| - delta / 2) beyond.

    Args:
        delta: the error, in standard deviations of the target, from which on the loss is linear.
    """

    delta: Positive

    def of_logits(self, logits: mx.array, targets: mx.array) -> mx.array:
        return huber(logits, targets, self.delta)


def squared_error(outputs: mx.array, targets: mx.array) -> mx.array:
    """Outputs (B, 1) of a model and targets (B,) -> (B,), in float32."""
    return mx.square(outputs.astype(mx.float32).squeeze(-1) - targets)


def huber(outputs: mx.array, targets: mx.array, delta: float) -> mx.array:
    """Outputs (B, 1) of a model and targets (B,) -> (B,), in float32."""
    error = mx.abs(outputs.astype(mx.float32).squeeze(-1) - targets)
    small = mx.minimum(error, delta)
    return small * (error - 0.5 * small)
