"""Samplers that choose the next trial: all combinations in order (grid) or at random."""

import math
from typing import Protocol

import numpy as np

from mlxlab.config.hydra.search_space import Domain, Point, Values

MAX_COMBINATIONS = 1_000_000  # of a grid, and of a space that is sampled without repetition


class Sampler(Protocol):
    """Proposes trials in order. A function of its settings and the results so far: a continued search is the same."""

    def propose(self, number: int) -> Point:
        """The point of trial `number`."""

    def record(self, point: Point, values: list[float] | None) -> None:
        """The result of the point last proposed; None if it failed."""


class GridSampler:
    """All combinations; the values of the last key change fastest."""

    def __init__(self, space: list[Values]) -> None:
        self.space = space

    def propose(self, number: int) -> Point:
        return combination(self.space, number)

    def record(self, point: Point, values: list[float] | None) -> None:
        pass


class RandomSampler:
    """Independent draws; without intervals the combinations in a random order, none twice."""

    def __init__(self, space: list[Domain], seed: int) -> None:
        self.space, self.seed = space, seed
        size = num_combinations(space) or MAX_COMBINATIONS + 1
        self.order = np.random.default_rng(seed).permutation(size) if size <= MAX_COMBINATIONS else None

    def propose(self, number: int) -> Point:
        if self.order is not None:
            return combination([domain for domain in self.space if isinstance(domain, Values)], int(self.order[number]))
        random = np.random.default_rng([self.seed, number])
        return {domain.key: _draw(domain, random) for domain in self.space}

    def record(self, point: Point, values: list[float] | None) -> None:
        pass


def num_combinations(space: list[Domain]) -> int | None:
    """The number of points of a space; None with intervals."""
    sizes = [len(domain.texts) for domain in space if isinstance(domain, Values)]
    return math.prod(sizes) if len(sizes) == len(space) else None


def combination(space: list[Values], index: int) -> Point:
    """The combination at `index` in the order of a grid."""
    point: Point = {}
    for domain in reversed(space):
        index, position = divmod(index, len(domain.texts))
        point[domain.key] = domain.texts[position]
    return {domain.key: point[domain.key] for domain in space}


def _draw(domain: Domain, random: np.random.Generator) -> str | int | float:
    if isinstance(domain, Values):
        return domain.texts[random.integers(len(domain.texts))]
    low, high = (domain.low, domain.high + 1) if domain.integer else (domain.low, domain.high)
    scale, inverse = (math.log, math.exp) if domain.log else (float, float)
    value = inverse(random.uniform(scale(low), scale(high)))
    return min(max(math.floor(value) if domain.integer else value, domain.low), domain.high)  # rounding at the ends
