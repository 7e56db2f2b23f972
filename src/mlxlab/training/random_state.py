"""Saves and restores the state of MLX's random number generator."""

from collections.abc import Callable
from typing import cast

import mlx.core as mx


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
