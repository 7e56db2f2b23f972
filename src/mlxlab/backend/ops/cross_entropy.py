"""Cross-entropy of classes and of labels, and Kullback-Leibler divergence, from logits.

On Linux CPU native, or with their own gradients, which reuse the exponentials of the forward pass: nearly all of the
time there.
"""

import mlx.core as mx
import mlx.nn as nn

from mlxlab.backend.ops.exp import (
    Arrays,
    broadcast_view,
    exp_and_sum,
    row_sum,
    use_custom_ops,
    with_gradient,
)
from mlxlab.backend.ops.native import kernels

FEW = 64  # classes: below that MLX's own form is as fast


def cross_entropy(logits: mx.array, targets: mx.array, label_smoothing: float = 0.0) -> mx.array:
    """(..., C), (...) -> (...), in float32: (1 - e) times that of the target plus e times the mean over all classes."""
    if mx.default_device() == mx.Device(mx.gpu):
        return fused_cross_entropy(logits, targets, label_smoothing)
    logits = logits.astype(mx.float32)
    classes = logits.shape[-1]
    if kernels.usable(logits):
        return kernels.cross_entropy(logits, targets, label_smoothing)
    if classes < FEW or not use_custom_ops():
        return nn.losses.cross_entropy(
            logits, targets, label_smoothing=label_smoothing, reduction="none"
        )

    def loss(logits: mx.array, targets: mx.array) -> Arrays:
        maximum, powers, sums = exp_and_sum(logits)
        target_logits = mx.take_along_axis(logits, targets[..., None], axis=-1)
        values = mx.log(sums) + maximum - (1 - label_smoothing) * target_logits
        if label_smoothing:
            values = values - (label_smoothing / classes) * row_sum(logits)
        return values.squeeze(-1), powers, sums

    def gradient(inputs: Arrays, cotangent: mx.array, outputs: Arrays) -> Arrays:
        _, targets = inputs
        _, powers, sums = outputs
        cotangent = cotangent[..., None]
        index = targets[..., None]
        out = powers * broadcast_view(cotangent / sums, powers.shape)
        if label_smoothing:
            out = out - broadcast_view(cotangent * (label_smoothing / classes), out.shape)
        target_logits = mx.take_along_axis(out, index, axis=-1) - cotangent * (1 - label_smoothing)
        return mx.put_along_axis(out, index, target_logits, axis=-1), mx.zeros_like(targets)

    return with_gradient(loss, gradient)(logits, targets)


def fused_cross_entropy(
    logits: mx.array, targets: mx.array, label_smoothing: float = 0.0
) -> mx.array:
    """`cross_entropy` by MLX's kernel for GPUs, which reads bfloat16 logits without a float32 copy of them.

    The kernel has no label smoothing: e times the logit of the target minus e times the mean logit are added.
    """
    values = mx.fast.cross_entropy(logits, targets)
    if not label_smoothing:
        return values
    target_logits = mx.take_along_axis(logits, targets[..., None], axis=-1).squeeze(-1)
    return values + label_smoothing * (target_logits.astype(mx.float32) - mean_logit(logits))


def mean_logit(logits: mx.array) -> mx.array:
    """(..., C) -> (...), in float32. GPUs sum bfloat16 in bfloat16: groups of 64 first, their sums in float32."""

    def forward(logits: mx.array) -> Arrays:
        *outer, classes = logits.shape
        even = classes - classes % FEW
        groups = logits[..., :even].reshape(*outer, even // FEW, FEW)
        total = groups.sum(axis=-1).astype(mx.float32).sum(axis=-1)
        rest = logits[..., even:].astype(mx.float32).sum(axis=-1)
        return ((total + rest) / classes,)

    def gradient(inputs: Arrays, cotangent: mx.array, outputs: Arrays) -> Arrays:
        [logits] = inputs
        share = (cotangent / logits.shape[-1]).astype(logits.dtype)
        return (mx.broadcast_to(share[..., None], logits.shape),)

    return with_gradient(forward, gradient)(logits)


def binary_cross_entropy(
    logits: mx.array,
    targets: mx.array,
    label_smoothing: float = 0.0,
    positive_weights: mx.array | None = None,
) -> mx.array:
    """(..., L), (..., L) in [0, 1] -> (..., L), in float32; the positive term times `positive_weights` (L,), if any.

    Smoothing moves a target by e towards 1/2: (1 - e) y + e / 2.
    """
    logits = logits.astype(mx.float32)
    if label_smoothing:
        targets = (1 - label_smoothing) * targets + label_smoothing / 2
    # Two terms instead of softplus(z) - y z: the loss of a confident correct logit does not cancel to 0.
    positive = mx.logaddexp(-logits, mx.array(0.0))
    negative = mx.logaddexp(logits, mx.array(0.0))
    if positive_weights is not None:
        positive = positive_weights * positive
    return targets * positive + (1 - targets) * negative


def log_softmax(x: mx.array) -> mx.array:
    return x - mx.logsumexp(x, axis=-1, keepdims=True)


def kl_divergence(t: mx.array, z: mx.array, temperature: float = 1.0) -> mx.array:
    """KL(softmax t/T || softmax z/T): (..., C) twice -> (...), float32; 0 if equal. Gradients reach `z` alone."""
    t = mx.stop_gradient(t.astype(mx.float32))
    z = z.astype(mx.float32)
    if kernels.usable(t, z) and t.shape == z.shape:
        return kernels.kl_divergence(z, t, 1 / temperature)
    if z.shape[-1] < FEW or not use_custom_ops():
        log_p = log_softmax(t / temperature)
        return (mx.exp(log_p) * (log_p - log_softmax(z / temperature))).sum(axis=-1)
    scale = 1 / temperature  # only in factors of rows: no pass over all classes

    def forward(t: mx.array, z: mx.array) -> Arrays:
        max_t, powers_t, sums_t = exp_and_sum(t, scale)
        max_z, powers_z, sums_z = exp_and_sum(z, scale)
        mean = row_sum(powers_t * (t - z)) * scale / sums_t
        values = mean - (max_t * scale + mx.log(sums_t)) + (max_z * scale + mx.log(sums_z))
        return values.squeeze(-1), powers_t, sums_t, powers_z, sums_z

    def gradient(inputs: Arrays, cotangent: mx.array, outputs: Arrays) -> Arrays:
        _, powers_t, sums_t, powers_z, sums_z = outputs
        cotangent = cotangent[..., None] * scale
        shape = powers_z.shape
        of_z = powers_z * broadcast_view(cotangent / sums_z, shape)
        of_t = powers_t * broadcast_view(cotangent / sums_t, shape)
        return mx.zeros_like(inputs[0]), of_z - of_t

    return with_gradient(forward, gradient)(t, z)
