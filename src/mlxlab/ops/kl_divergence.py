"""Kullback-Leibler divergence of two softmaxes, along the last axis.

On Linux CPU with its own gradient, which reuses the exponentials of the forward pass: they are nearly all of the time
there. Equal logits give exactly 0.
"""

import mlx.core as mx

from mlxlab.ops.cross_entropy import FEW
from mlxlab.ops.exp import Arrays, broadcast_view, exp_and_sum, row_sum, use_custom_ops, with_gradient


def log_softmax(x: mx.array) -> mx.array:
    return x - mx.logsumexp(x, axis=-1, keepdims=True)


def divergence(t: mx.array, z: mx.array, temperature: float = 1.0) -> mx.array:
    """KL(softmax t/T || softmax z/T): (..., C), (..., C) -> (...), in float32. Gradients reach `z` alone."""
    t, z = mx.stop_gradient(t.astype(mx.float32)), z.astype(mx.float32)
    if z.shape[-1] < FEW or not use_custom_ops():
        log_p = log_softmax(t / temperature)
        return (mx.exp(log_p) * (log_p - log_softmax(z / temperature))).sum(axis=-1)
    scale = 1 / temperature  # only in factors of rows: no pass over all classes

    def forward(t: mx.array, z: mx.array) -> Arrays:
        (max_t, powers_t, sums_t), (max_z, powers_z, sums_z) = exp_and_sum(t, scale), exp_and_sum(z, scale)
        mean = row_sum(powers_t * (t - z)) * scale / sums_t
        values = mean - (max_t * scale + mx.log(sums_t)) + (max_z * scale + mx.log(sums_z))
        return values.squeeze(-1), powers_t, sums_t, powers_z, sums_z

    def gradient(inputs: Arrays, cotangent: mx.array, outputs: Arrays) -> Arrays:
        _, powers_t, sums_t, powers_z, sums_z = outputs
        slope, shape = cotangent[..., None] * scale, powers_z.shape
        out = powers_z * broadcast_view(slope / sums_z, shape) - powers_t * broadcast_view(slope / sums_t, shape)
        return mx.zeros_like(inputs[0]), out

    return with_gradient(forward, gradient)(t, z)
