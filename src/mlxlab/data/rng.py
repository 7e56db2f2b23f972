"""Chance without state: every draw is a pure function of a seed and the numbers that name what is drawn.

So a row's template, its place in an epoch and its side of the split can be found at any time, in any process, without
replaying what came before, and do not depend on the version of NumPy's generators.
"""

from collections.abc import Callable

import numpy as np

STEP = np.uint64(0x9E3779B97F4A7C15)

Order = Callable[[int], np.ndarray]  # epoch -> a permutation of range(count), int64


def counter_hash(seed: int, *numbers: int | np.ndarray) -> np.ndarray:
    """64 well-mixed bits (uint64) for each (seed, *numbers); the numbers broadcast."""
    state = _finalize(np.array([seed % 2**64], np.uint64))
    for number in numbers:
        state = _finalize((state + STEP) ^ np.atleast_1d(number).astype(np.uint64))
    return state


def epoch_permutation(count: int, seed: int) -> Order:
    """A new permutation of `count` examples each epoch."""

    def order(epoch: int) -> np.ndarray:
        return np.argsort(counter_hash(seed, 0x5EED, epoch, np.arange(count)), kind="stable")

    return order


def _finalize(z: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele 2014): a bijection of 64 bits; array arithmetic is modulo 2^64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
