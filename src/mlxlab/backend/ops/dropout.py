"""Dropout with masks from a hash of a counter: the same on every platform, six times as fast as MLX's on a CPU.

Only integer operations lead from the seed to a mask: MLX's generator of keys (Threefry) and the hash are exact, while
`mx.random.uniform` and `bernoulli` pass through floating-point arithmetic, which differs between processors.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import cast

import mlx.core as mx
import mlx.nn as nn

from mlxlab.backend.ops.native import kernels

LEVELS = 2**16  # the fraction kept is a multiple of 1 / LEVELS


class Dropout(nn.Module):
    """Zeroes a fraction `p` of its inputs in training and scales up the rest (Srivastava et al. 2014)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def __call__(self, x: mx.array) -> mx.array:
        if self.training and self.p:
            return apply_dropout(x, self.p)
        return x


def apply_dropout(x: mx.array, dropped: float) -> mx.array:
    """`x` with a fraction of it zeroed, the rest divided by the fraction kept."""
    return DropoutMask.draw(x.shape, dropped).apply(x)


@dataclass(frozen=True)
class DropoutMask:
    """The elements kept, to apply to a value and to its gradient alike.

    Args:
        key: (2,) uint32, of the hash.
        bound: elements whose 16 random bits are below are kept.
    """

    shape: tuple[int, ...]
    key: mx.array
    bound: int

    @classmethod
    def draw(cls, shape: tuple[int, ...], dropped: float) -> "DropoutMask":
        """A mask by the next key of MLX's generator."""
        # Advances the generator as MLX's own functions do, without their floating-point numbers.
        state = random_key()
        state[:], key = mx.random.split(state)
        return cls(tuple(shape), key, max(1, round((1 - dropped) * LEVELS)))

    @property
    def scale(self) -> float:
        """The inverse of the fraction kept."""
        return LEVELS / self.bound

    @cached_property
    def keep_mask(self) -> mx.array:
        """bool, of the shape."""
        count = prod(self.shape)
        numbers = _random_words(self.key, -(-count // 2)).view(mx.uint16)[:count]
        return numbers.reshape(self.shape) <= mx.array(self.bound - 1, mx.uint16)

    def apply(self, x: mx.array) -> mx.array:
        if kernels.usable(x) and x.shape == self.shape:
            return kernels.dropout(x, self.key, self.bound, self.scale)
        return x * (self.keep_mask.astype(x.dtype) * self.scale)


def _random_words(key: mx.array, count: int) -> mx.array:
    """(count,) uint32: a hash (Wellons' lowbias32) of 0, 1, ... and of a key."""
    x = mx.arange(count, dtype=mx.uint32) ^ key[0]
    x = (x ^ (x >> 16)) * mx.array(0x7FEB352D, mx.uint32)
    x = (x ^ key[1]) ^ (x >> 15)
    x = x * mx.array(0x846CA68B, mx.uint32)
    return x ^ (x >> 16)


def random_key() -> mx.array:
    """The key of this thread's generator, (2,) uint32; assigning to its elements sets the generator."""
    return cast(list[mx.array], mx.random.state)[0]


def save_random_state() -> Callable[[], None]:
    """A function that returns the generator of this thread to its present state."""
    saved = mx.array(random_key())  # read by the host only if it is needed

    def restore() -> None:
        high, low = cast(list[int], saved.tolist())
        mx.random.seed((high << 32) | low)

    return restore
