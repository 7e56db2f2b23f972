"""The logarithm of a softmax, and the softmax with it. On Linux CPU one pass of exponentials serves both, and the way
back; whoever is given the same numbers gets the same bits."""

from typing import Any

import mlx.core as mx

from mlxlab.models.fast_cross_entropy import FEW
from mlxlab.models.fast_exp import exp_of_negative, rewritten, row_max, row_sum, spread


def log_softmax(x: mx.array) -> tuple[mx.array, mx.array]:
    """(..., C) -> log p and p, in float32. Gradients flow through log p alone: p is a constant."""
    x = x.astype(mx.float32)
    if x.shape[-1] < FEW or not rewritten():
        log_p = x - mx.logsumexp(x, axis=-1, keepdims=True)
        return log_p, mx.stop_gradient(mx.exp(log_p))
    parts: Any = _with_gradient()(x)
    log_p, powers, sums = parts
    return log_p, mx.stop_gradient(powers * spread(1 / sums, powers.shape))


def _with_gradient() -> mx.custom_function:
    """x -> log p, exponentials, their sums."""

    @mx.custom_function
    def soften(x: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        most = row_max(x)
        powers = exp_of_negative(x - spread(most, x.shape))
        sums = row_sum(powers)
        return x - spread(most + mx.log(sums), x.shape), powers, sums

    @soften.vjp
    def gradient(x: mx.array, cotangents: tuple[mx.array, ...], outputs: tuple[mx.array, ...]) -> mx.array:
        slope, (_, powers, sums) = cotangents[0], outputs
        return slope - powers * spread(row_sum(slope) / sums, powers.shape)

    return soften
