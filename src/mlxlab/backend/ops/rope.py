"""Rotary positions (Su et al. 2021): each head's dimensions i and i + d / 2 are turned together."""

from functools import lru_cache

import mlx.core as mx
import numpy as np

from mlxlab.backend.ops.native import kernels

MIN_TABLE = 256  # positions


def apply_rope(
    x: mx.array, theta: float, offset: int | mx.array = 0, periods: tuple[float, ...] | None = None
) -> mx.array:
    """Turns queries or keys, the first position being `offset` or (B,) of them: (B, H, T, d) -> the same.

    `periods` are 1 / frequency, in place of those of the base `theta`.
    """
    if isinstance(offset, int) and kernels.usable(x):
        length = offset + x.shape[2]
        table = rope_table(
            max(MIN_TABLE, 1 << (length - 1).bit_length()), x.shape[3], theta, periods
        )
        return kernels.rope(x, table[offset:length])
    freqs = None if periods is None else mx.array(periods)
    base = theta if periods is None else None
    return mx.fast.rope(
        x, x.shape[-1], traditional=False, base=base, scale=1.0, offset=offset, freqs=freqs
    )


@lru_cache(maxsize=32)
def rope_table(length: int, size: int, theta: float, periods: tuple[float, ...] | None) -> mx.array:
    """Cosines and sines of positions 0 .. length - 1: (length, size), first the cosines of all size / 2 frequencies."""
    inverse = (
        np.array(periods) if periods is not None else theta ** (np.arange(size // 2) * 2 / size)
    )
    angles = np.outer(np.arange(length), 1 / inverse)
    return mx.array(np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
