"""Samplers that choose the next trial: all combinations in order (grid) or at random."""

import math
from typing import Protocol

import numpy as np

from mlxlab.config.hydra.search_space import Domain, Point, Values
from mlxlab.sweep.search.trial import Trial

MAX_COMBINATIONS = 1_000_000  # of a grid, and of a space that is sampled without repetition


class Sampler(Protocol):
    """Proposes trials. A function of its settings and of the trials so far: a continued search is the same."""

    def propose(self, trials: list[Trial]) -> Point:
        """The point of the trial that follows `trials`, all of which it proposed."""


class GridSampler:
    """All combinations; the values of the last key change fastest."""

    def __init__(self, space: list[Values]) -> None:
        self.space = space

    def propose(self, trials: list[Trial]) -> Point:
        return combination(self.space, len(trials))


class RandomSampler:
    """Independent draws; without intervals the combinations in a random order, none twice."""

    def __init__(self, space: list[Domain], seed: int) -> None:
        self.space, self.seed = space, seed
        size = num_combinations(space) or MAX_COMBINATIONS + 1
        self.order = (
            np.random.default_rng(seed).permutation(size) if size <= MAX_COMBINATIONS else None
        )

    def propose(self, trials: list[Trial]) -> Point:
        number = len(trials)
        if self.order is not None:
            return combination(
                [domain for domain in self.space if isinstance(domain, Values)],
                int(self.order[number]),
            )
        random = np.random.default_rng([self.seed, number])
        return {domain.key: _draw(domain, random) for domain in self.space}


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
    return min(
        max(math.floor(value) if domain.integer else value, domain.low), domain.high
    )  # rounding at the ends
