"""The domains of a search space as distributions of Optuna, and points of the space as their parameters."""

import math
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mlxlab.config.hydra.search_space import Domain, Point, Values

MAX_COMBINATIONS = 1_000_000  # of a grid, and of a space that is sampled without repetition


def distributions(space: list[Domain]) -> dict[str, BaseDistribution]:
    return {domain.key: _distribution(domain) for domain in space}


def _distribution(domain: Domain) -> BaseDistribution:
    """Values of a range have the distribution of their positions."""
    if isinstance(domain, Values):
        if domain.ordered:
            return IntDistribution(0, len(domain.texts) - 1)
        return CategoricalDistribution(domain.texts)
    if domain.integer:
        return IntDistribution(int(domain.low), int(domain.high), log=domain.log)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def point_of(params: dict[str, Any], space: list[Domain]) -> Point:
    """The point that parameters of Optuna mean."""
    point: Point = {}
    for domain in space:
        value = params[domain.key]
        if isinstance(domain, Values) and domain.ordered:
            value = domain.texts[int(value)]
        point[domain.key] = value
    return point


def params_of(point: Point, space: list[Domain]) -> dict[str, Any]:
    """The parameters of Optuna for a point."""
    params: dict[str, Any] = {}
    for domain in space:
        value = point[domain.key]
        if isinstance(domain, Values) and domain.ordered:
            value = domain.texts.index(str(value))
        params[domain.key] = value
    return params


def num_combinations(space: list[Domain]) -> int | None:
    """The number of points of a space; None with intervals."""
    sizes = [len(domain.texts) for domain in space if isinstance(domain, Values)]
    return math.prod(sizes) if len(sizes) == len(space) else None


def combination(space: list[Domain], index: int) -> Point:
    """The combination at an index in the order of a grid: the values of the last key change fastest."""
    values = [domain for domain in space if isinstance(domain, Values)]
    sizes = [len(domain.texts) for domain in values]
    positions = np.unravel_index(index, sizes)
    return {
        domain.key: domain.texts[position]
        for domain, position in zip(values, positions, strict=True)
    }
