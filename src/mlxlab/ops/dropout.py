"""Dropout. On Linux CPU its random numbers come from a hash of a counter: six times as fast as MLX's generator."""

from dataclasses import dataclass
from math import prod

import mlx.core as mx
import mlx.nn as nn

from mlxlab.ops.exp import use_custom_ops

WORD = 2**16  # the share kept is a multiple of 1 / WORD


class Dropout(nn.Module):
    """Zeroes a share `p` of what it gets, while training, and scales the rest up (Srivastava et al. 2014)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def __call__(self, x: mx.array) -> mx.array:
        return apply_dropout(x, self.p) if self.training and self.p else x


def apply_dropout(x: mx.array, dropped: float) -> mx.array:
    """`x` with a share of it zeroed, the rest divided by the share kept."""
    if use_custom_ops():
        return DropoutMask.draw(x.shape, dropped).apply(x)
    return mx.where(mx.random.bernoulli(1 - dropped, x.shape), x * (1 / (1 - dropped)), 0)


@dataclass(frozen=True)
class DropoutMask:
    """What is kept, so that it can be applied to a value and to its gradient."""

    chosen: mx.array  # bool
    scale: float

    @classmethod
    def draw(cls, shape: tuple[int, ...], dropped: float) -> "DropoutMask":
        bound = max(1, round((1 - dropped) * WORD))
        numbers = _random_words(-(-prod(shape) // 2)).view(mx.uint16)[: prod(shape)].reshape(shape)
        return cls(numbers <= mx.array(bound - 1, mx.uint16), WORD / bound)

    def apply(self, x: mx.array) -> mx.array:
        return x * (self.chosen.astype(x.dtype) * self.scale)


def _random_words(count: int) -> mx.array:
    """(count,) uint32, a hash (Wellons' lowbias32) of 0, 1, ... and of two draws from MLX's generator."""
    key = mx.random.randint(-(2**31), 2**31 - 1, (2,)).view(mx.uint32)
    x = mx.arange(count, dtype=mx.uint32) ^ key[0]
    x = (x ^ (x >> 16)) * mx.array(0x7FEB352D, mx.uint32)
    x = (x ^ key[1]) ^ (x >> 15)
    x = x * mx.array(0x846CA68B, mx.uint32)
    return x ^ (x >> 16)
