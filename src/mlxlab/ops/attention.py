"""Softmax attention. On Linux CPU with its own gradient, normalized after the product with the values."""

import mlx.core as mx

from mlxlab.ops.custom_gradient import with_gradient
from mlxlab.ops.dropout import DropoutMask, apply_dropout
from mlxlab.ops.exp import Arrays, broadcast_view, exp_and_sum, fusion_barrier, use_custom_ops

MASK_VALUE = -1e9  # added to masked scores; infinity would give NaN for a row of padding only
BLOCK = 64  # queries at a time under a causal mask


def scaled_dot_product_attention(
    q: mx.array, k: mx.array, v: mx.array, mask: mx.array | str, *, scale: float, dropout: float = 0.0
) -> mx.array:
    """(B, H, T, d), (B, K, S, d), (B, K, S, d) -> (B, H, T, d), every H / K query heads sharing keys and values.

    `mask` is "causal", or a bias to add to the scores, (1 or B, 1 or H, 1 or T, S). `dropout` acts on the weights.
    """
    rewrite = use_custom_ops() and q.dtype == mx.float32 and q.shape[2] > 1
    if not rewrite and not dropout:
        return mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
    if q.shape[1] != k.shape[1]:
        k, v = (mx.repeat(x, q.shape[1] // k.shape[1], axis=1) for x in (k, v))
    if rewrite and not isinstance(mask, str):
        return _weigh(q * scale, k, v, mask, dropout)
    if rewrite:
        return _causal(q * scale, k, v, dropout)
    if isinstance(mask, str):
        mask = causal_mask(q.shape[2], k.shape[2], q.dtype)
    weights = mx.softmax((q * scale) @ k.swapaxes(-1, -2) + mask, axis=-1, precise=True)  # (B, H, T, S)
    return apply_dropout(weights, dropout) @ v


def _causal(q: mx.array, k: mx.array, v: mx.array, dropout: float) -> mx.array:
    """By blocks of queries, each with the keys up to its end: nearly half of the work is skipped."""
    T, S = q.shape[2], k.shape[2]
    out = []
    for start in range(0, T, BLOCK):
        end = min(start + BLOCK, T)
        seen = S - T + end
        mask = causal_mask(end - start, seen, q.dtype)
        out.append(_weigh(q[:, :, start:end], k[:, :, :seen], v[:, :, :seen], mask, dropout))
    return mx.concatenate(out, axis=2) if len(out) > 1 else out[0]


def causal_mask(queries: int, keys: int, dtype: mx.Dtype) -> mx.array:
    """The causal bias (T, S): the last query attends to all keys, each earlier one to one less."""
    positions = mx.arange(keys)
    return mx.where(positions[keys - queries :, None] >= positions, 0.0, MASK_VALUE).astype(dtype)


def _weigh(q: mx.array, k: mx.array, v: mx.array, mask: mx.array, dropout: float) -> mx.array:
    """(B, H, T, d) scaled queries -> (B, H, T, d)"""
    chosen = DropoutMask.draw((*q.shape[:3], k.shape[2]), dropout) if dropout else None

    def forward(q: mx.array, k: mx.array, v: mx.array) -> Arrays:
        scores = q @ k.swapaxes(-1, -2)  # (B, H, T, S)
        _, powers, sums = exp_and_sum(fusion_barrier(scores + broadcast_view(mask, scores.shape)))
        return (chosen.apply(powers) if chosen else powers) @ v / sums, powers, sums

    def backward(inputs: Arrays, slope: mx.array, outputs: Arrays) -> Arrays:
        (q, k, v), (out, powers, sums) = inputs, outputs
        level = (slope * out).sum(axis=-1, keepdims=True) / sums
        slope = slope / sums
        back, used = slope @ v.swapaxes(-1, -2), powers  # (B, H, T, S)
        if chosen:
            back, used = chosen.apply(back), chosen.apply(powers)
        scores = powers * fusion_barrier(back - broadcast_view(level, back.shape))
        return scores @ k, scores.swapaxes(-1, -2) @ q, used.swapaxes(-1, -2) @ slope

    return with_gradient(forward, backward)(q, k, v)
