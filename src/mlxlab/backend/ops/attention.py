"""Softmax attention and rotary positions.

On Linux CPU native, or attention with its own gradient, normalized after the product with the values.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import mlx.core as mx
import numpy as np

from mlxlab.backend.ops.dropout import DropoutMask, apply_dropout
from mlxlab.backend.ops.exp import (
    Arrays,
    broadcast_view,
    exp_and_sum,
    fusion_barrier,
    use_custom_ops,
    with_gradient,
)
from mlxlab.backend.ops.native import kernels

MASK_VALUE = -1e9  # added to masked scores; infinity would give NaN for a row of padding only
BLOCK = 64  # queries at a time under a causal mask
MIN_TABLE = 256  # rotary positions


@dataclass(frozen=True)
class SegmentMask:
    """The positions of whole rows that each position attends to.

    Args:
        segment_ids: (B, T): a position attends to its own document; padding (0) is attended to by nobody and attends to
            all real tokens, as in BERT. Booleans promise one document per row, padded on the right only.
        causal: whether each position attends only to itself and what precedes it.
        bias: the same, to add to the scores: (B, 1, 1 or T, T), or "causal".
    """

    segment_ids: mx.array
    causal: bool
    bias: mx.array | str


Mask = mx.array | str | SegmentMask


def scaled_dot_product_attention(
    q: mx.array, k: mx.array, v: mx.array, mask: Mask, *, scale: float, dropout: float = 0.0
) -> mx.array:
    """(B, H, T, d), (B, K, S, d), (B, K, S, d) -> (B, H, T, d), every H / K query heads sharing keys and values.

    `mask` is "causal", a bias to add to the scores, (1 or B, 1 or H, 1 or T, S), or that of whole rows. `dropout` acts
    on the weights.
    """
    if isinstance(mask, SegmentMask):
        num_weights = math.prod(q.shape[:3]) * k.shape[2]
        if kernels.usable(q, k, v) and num_weights < kernels.MAX_SIZE:
            return _native(q, k, v, mask, scale, dropout)
        mask = mask.bias
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
    scores = (q * scale) @ k.swapaxes(-1, -2) + mask  # (B, H, T, S)
    weights = mx.softmax(scores, axis=-1, precise=True)
    return apply_dropout(weights, dropout) @ v


def _native(
    q: mx.array, k: mx.array, v: mx.array, mask: SegmentMask, scale: float, dropout: float
) -> mx.array:
    segment_ids: mx.array | None = mask.segment_ids
    if mask.causal and mask.segment_ids.dtype == mx.bool_:
        segment_ids = None  # Real tokens see no padding: it comes after them.
    drawn = None
    if dropout:
        chosen = DropoutMask.draw((*q.shape[:3], k.shape[2]), dropout)
        drawn = (chosen.key, chosen.bound, chosen.scale)
    return kernels.attention(
        q, k, v, scale=scale, causal=mask.causal, segment_ids=segment_ids, dropout=drawn
    )


def _causal(q: mx.array, k: mx.array, v: mx.array, dropout: float) -> mx.array:
    """Computes blocks of queries, each with the keys up to its end: nearly half of the work is skipped."""
    T = q.shape[2]
    S = k.shape[2]
    out = []
    for start in range(0, T, BLOCK):
        end = min(start + BLOCK, T)
        seen = S - T + end
        mask = causal_mask(end - start, seen, q.dtype)
        out.append(_weigh(q[:, :, start:end], k[:, :, :seen], v[:, :, :seen], mask, dropout))
    return mx.concatenate(out, axis=2)


def causal_mask(queries: int, keys: int, dtype: mx.Dtype) -> mx.array:
    """The causal bias (T, S): the last query attends to all keys, each earlier one to one less."""
    positions = mx.arange(keys)
    return mx.where(positions[keys - queries :, None] >= positions, 0.0, MASK_VALUE).astype(dtype)


def _weigh(q: mx.array, k: mx.array, v: mx.array, mask: mx.array, dropout: float) -> mx.array:
    """(B, H, T, d) scaled queries -> (B, H, T, d)"""
    chosen = None
    if dropout:
        chosen = DropoutMask.draw((*q.shape[:3], k.shape[2]), dropout)

    def forward(q: mx.array, k: mx.array, v: mx.array) -> Arrays:
        scores = q @ k.swapaxes(-1, -2)  # (B, H, T, S)
        _, powers, sums = exp_and_sum(fusion_barrier(scores + broadcast_view(mask, scores.shape)))
        used = powers
        if chosen:
            used = chosen.apply(powers)
        return used @ v / sums, powers, sums

    def backward(inputs: Arrays, cotangent: mx.array, outputs: Arrays) -> Arrays:
        q, k, v = inputs
        out, powers, sums = outputs
        dots = (cotangent * out).sum(axis=-1, keepdims=True) / sums
        cotangent = cotangent / sums
        back = cotangent @ v.swapaxes(-1, -2)  # (B, H, T, S)
        used = powers
        if chosen:
            back = chosen.apply(back)
            used = chosen.apply(powers)
        scores = powers * fusion_barrier(back - broadcast_view(dots, back.shape))
        return scores @ k, scores.swapaxes(-1, -2) @ q, used.swapaxes(-1, -2) @ cotangent

    return with_gradient(forward, backward)(q, k, v)


def apply_rope(
    x: mx.array, theta: float, offset: int | mx.array = 0, periods: tuple[float, ...] | None = None
) -> mx.array:
    """Turns queries or keys, the first position being `offset` or (B,) of them: (B, H, T, d) -> the same.

    Dimensions i and i + d / 2 of each head are turned together (Su et al. 2021). `periods` are 1 / frequency, in place of
    those of the base `theta`.
    """
    if isinstance(offset, int) and kernels.usable(x):
        end = offset + x.shape[2]
        length = max(MIN_TABLE, 1 << (end - 1).bit_length())
        return kernels.rope(x, rope_table(length, x.shape[3], theta, periods)[offset:end])
    base: float | None = theta
    freqs = None
    if periods is not None:
        base = None
        freqs = mx.array(periods)
    return mx.fast.rope(
        x, x.shape[-1], traditional=False, base=base, scale=1.0, offset=offset, freqs=freqs
    )


@lru_cache(maxsize=32)
def rope_table(length: int, size: int, theta: float, periods: tuple[float, ...] | None) -> mx.array:
    """Cosines and sines of positions 0 .. length - 1: (length, size), first the cosines of all size / 2 frequencies."""
    inverse = theta ** (np.arange(size // 2) * 2 / size)
    if periods is not None:
        inverse = np.array(periods)
    angles = np.outer(np.arange(length), 1 / inverse)
    return mx.array(np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
