"""Counter-based random numbers: every draw is a pure function of a seed and of integers that identify the draw.

Orders, splits and templates can so be computed in any process without replaying earlier draws, and do not depend on
the version of NumPy.
"""

from collections.abc import Callable
from enum import IntEnum

import numpy as np

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)

Order = Callable[[int], np.ndarray]  # epoch -> a permutation of range(count), int64


class Stream(IntEnum):
    """Random streams: draws for different purposes are independent though they share the seed of the run."""

    EXAMPLE_ORDER = 0x5EED
    BATCH_ORDER = 0xBA7C
    SELECTION = 0x5E1EC7
    SPLIT = 0x5B117
    FOLDS = 0xF01D5  # draws the folds of networks that are trained side by side
    TEMPLATE = 0x7E3A
    UNIT_ORDER = 0x5E9E  # Files, row groups and shards of the hub are each read sequentially.
    WINDOW_SHUFFLE = 0xD0C5  # shuffles the documents within a window
    ROW_SHUFFLE = 0x9001
    CURRICULUM_TIES = 0xC0771
    MASKED = 0x3A5C
    MASK_KIND = 0x3A5D  # replaced by the mask token, by another token, or unchanged
    MASK_REPLACEMENT = 0x3A5E


def counter_hash(seed: int, *numbers: int | np.ndarray) -> np.ndarray:
    """64 well-mixed bits (uint64) for each (seed, *numbers); the numbers broadcast."""
    state = _finalize(np.array([seed % 2**64], np.uint64))
    for number in numbers:
        state = _finalize((state + GOLDEN_GAMMA) ^ np.atleast_1d(number).astype(np.uint64))
    return state


def permutation(count: int, seed: int, *numbers: int) -> np.ndarray:
    """(count,) int64: a permutation of range(count) that is a function of (seed, *numbers)."""
    return np.argsort(counter_hash(seed, *numbers, np.arange(count)), kind="stable")


def uniform(seed: int, *numbers: int | np.ndarray) -> np.ndarray:
    """Draws from [0, 1), float64, for each (seed, *numbers)."""
    return (counter_hash(seed, *numbers) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def epoch_permutation(count: int, seed: int) -> Order:
    """A different permutation of `count` examples for every epoch."""
    return lambda epoch: permutation(count, seed, Stream.EXAMPLE_ORDER, epoch)


def _finalize(z: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele et al. 2014): a bijection of 64 bits; array arithmetic is modulo 2^64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
