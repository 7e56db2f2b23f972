"""Kullback-Leibler divergence of two softmaxes, KL(softmax t/T || softmax z/T), along the last axis.

On Linux CPU with its own gradient, which reuses the exponentials of the forward pass: they are nearly all of the time
there. Equal logits give exactly 0.
"""

from typing import Any

import mlx.core as mx

from mlxlab.ops.cross_entropy import FEW
from mlxlab.ops.exp import broadcast_view, exp_of_negative, row_max, row_sum, use_custom_ops


def log_softmax(x: mx.array) -> mx.array:
    return x - mx.logsumexp(x, axis=-1, keepdims=True)


def divergence(t: mx.array, z: mx.array, temperature: float = 1.0) -> mx.array:
    """KL(softmax t/T || softmax z/T): (..., C), (..., C) -> (...), in float32. Gradients reach `z` alone."""
    t, z = mx.stop_gradient(t.astype(mx.float32)), z.astype(mx.float32)
    if z.shape[-1] < FEW or not use_custom_ops():
        log_p = log_softmax(t / temperature)
        return (mx.exp(log_p) * (log_p - log_softmax(z / temperature))).sum(axis=-1)
    results: Any = _with_gradient(1 / temperature)(t, z)
    values: mx.array = results[0]
    return values


def _with_gradient(scale: float) -> mx.custom_function:
    """(t, z) -> KL; exponentials and their sums of both. The scale is in factors of rows: no pass over all classes."""

    @mx.custom_function
    def apart(t: mx.array, z: mx.array) -> tuple[mx.array, ...]:
        (most_t, powers_t, sums_t), (most_z, powers_z, sums_z) = _soften(t, scale), _soften(z, scale)
        mean = row_sum(powers_t * (t - z)) * scale / sums_t
        values = mean - (most_t * scale + mx.log(sums_t)) + (most_z * scale + mx.log(sums_z))
        return values.squeeze(-1), powers_t, sums_t, powers_z, sums_z

    @apart.vjp
    def gradient(
        primals: tuple[mx.array, mx.array], cotangents: tuple[mx.array, ...], outputs: tuple[mx.array, ...]
    ) -> tuple[mx.array, mx.array]:
        _, powers_t, sums_t, powers_z, sums_z = outputs
        slope, shape = cotangents[0][..., None] * scale, powers_z.shape
        out = powers_z * broadcast_view(slope / sums_z, shape) - powers_t * broadcast_view(slope / sums_t, shape)
        return mx.zeros_like(primals[0]), out

    return apart


def _soften(x: mx.array, scale: float) -> tuple[mx.array, mx.array, mx.array]:
    max_logits = row_max(x)
    powers = exp_of_negative(x - broadcast_view(max_logits, x.shape), scale)
    return max_logits, powers, row_sum(powers)
