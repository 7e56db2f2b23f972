"""Saves and restores the state of MLX's random number generator."""

from collections.abc import Callable
from typing import cast

import mlx.core as mx


def random_key() -> mx.array:
    """The key of this thread's generator, (2,) uint32; assigning to its elements sets the generator."""
    return cast(list[mx.array], mx.random.state)[0]


def save_random_state() -> Callable[[], None]:
    """A function that returns the generator of this thread to its present state."""
    high, low = cast(list[int], random_key().tolist())
    return lambda: mx.random.seed((high << 32) | low)
