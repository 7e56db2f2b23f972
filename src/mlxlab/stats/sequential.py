"""A group-sequential paired t-test: looks at the gains after every pair of runs, and stops as soon as they decide.

The error of all looks together is spent by a power function of the share of pairs (Lan & DeMets 1983, "Discrete
sequential boundaries for clinical trials"; Kim & DeMets 1987). The t statistic does not depend on the unknown variance,
so the boundaries are those of simulated normal gains, not of an approximation for many pairs. The intervals hold at all
looks at once (Jennison & Turnbull 1989, "Interim analyses: the repeated confidence interval approach").
"""

import math
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from typing import Literal

import numpy as np

Verdict = Literal["keep", "discard", "undecided"]
Reason = Literal[
    "", "equal results", "gain", "loss", "gain too small", "gain unlikely", "no decision"
]

ERROR = 0.025  # The chance of a keep without a gain, over all looks.
FUTILITY = 0.05  # a smaller chance to be kept in the end is a discard
MIN_PAIRS = 3
POWER = 1.5  # 1 spends the error evenly, more keeps more of it for later looks.
_PATHS = 400_000  # simulated for the boundaries
_DRAWS = 1_000  # simulated for the chance to be kept
_MAX_EXACT = 14  # pairs up to which sign flips are enumerated


@dataclass(frozen=True)
class Look:
    """The gains of the pairs so far, and what they decide.

    Args:
        mean, low, high: the mean gain and its 95 % interval, which is valid at all looks at once.
        verdict: None while more pairs may decide.
        chance: that the change is kept in the end, should the gains go on like this; NaN before the first look.
    """

    pairs: int
    mean: float
    low: float
    high: float
    verdict: Verdict | None = None
    reason: Reason = ""
    chance: float = math.nan


def look(gains: np.ndarray, min_gain: float, first: int, last: int) -> Look:
    """Decides by the gains (N,) of the pairs so far, positive where the change is better.

    Args:
        min_gain: the smallest gain worth keeping.
        first, last: the numbers of pairs at the first and the last look.
    """
    pairs = len(gains)
    mean = float(np.mean(gains))
    bound = boundaries(first, last).get(pairs, math.inf)
    error = math.inf
    if pairs > 1:
        error = float(np.std(gains, ddof=1)) / math.sqrt(pairs)
    margin = bound * error if error else 0.0
    low = mean - margin
    high = mean + margin
    decided = partial(Look, pairs, mean, low, high)
    if pairs < first:
        return decided()
    if not gains.any():
        return decided("discard", "equal results", 0.0)
    if low > 0 and mean >= min_gain and not _may_be_chance(gains):
        return decided("keep", "gain", 1.0)
    if high < 0:
        return decided("discard", "loss", 0.0)
    if high < min_gain:
        return decided("discard", "gain too small", 0.0)
    if pairs >= last:
        return decided("undecided", "no decision", 0.0)
    chance = chance_to_keep(gains, min_gain, first, last)
    if chance < FUTILITY:
        return decided("discard", "gain unlikely", chance)
    return decided(chance=chance)


@cache
def boundaries(first: int, last: int) -> dict[int, float]:
    """Number of pairs -> the |t| above which the mean gain differs from 0, at looks after `first` to `last` pairs."""
    if first == last:
        from scipy.special import stdtrit  # It takes 0.2 s to import.

        return {last: float(stdtrit(last - 1, 1 - ERROR))}
    random = np.random.default_rng(0)
    total = np.zeros(_PATHS)
    squares = np.zeros(_PATHS)
    bounds: dict[int, float] = {}
    spent = 0.0
    for pairs in range(1, last + 1):
        gains = random.standard_normal(len(total))
        total = total + gains
        squares = squares + gains**2
        if pairs < first:
            continue
        statistic = np.abs(_t(total, squares, pairs))
        to_spend = ERROR * (pairs / last) ** POWER
        crossing = max(round(2 * (to_spend - spent) * _PATHS), 1)
        bounds[pairs] = float(np.partition(statistic, -crossing)[-crossing])
        inside = statistic < bounds[pairs]
        total = total[inside]
        squares = squares[inside]
        spent = to_spend
    return bounds


def chance_to_keep(gains: np.ndarray, min_gain: float, first: int, last: int) -> float:
    """The predictive probability of a keep at a later look (Spiegelhalter et al. 1986), by the gains so far.

    Mean and variance of the further gains are drawn from their distribution by these gains (reference prior).
    """
    pairs = len(gains)
    random = np.random.default_rng(pairs)
    deviations = np.square(gains - gains.mean()).sum()
    sigma = np.sqrt(deviations / random.chisquare(pairs - 1, _DRAWS))
    mean = gains.mean() + sigma / math.sqrt(pairs) * random.standard_normal(_DRAWS)
    noise = random.standard_normal((_DRAWS, last - pairs))
    further = mean[:, None] + sigma[:, None] * noise

    counts = np.arange(pairs + 1, last + 1)
    totals = gains.sum() + np.cumsum(further, axis=1)
    squares = np.square(gains).sum() + np.cumsum(further**2, axis=1)
    bounds = boundaries(first, last)
    crosses = _t(totals, squares, counts) > [bounds[int(count)] for count in counts]
    is_kept = crosses & (totals / counts >= min_gain)
    return float(np.mean(is_kept.any(axis=1)))


def _t(total: np.ndarray, squares: np.ndarray, count: "int | np.ndarray") -> np.ndarray:
    """The t statistic of `count` values by their sum and sum of squares."""
    variance = np.maximum((squares - total**2 / count) / (count - 1), 1e-300)
    return np.asarray(total / count / np.sqrt(variance / count))


def _may_be_chance(gains: np.ndarray) -> bool:
    """Whether equal gains, as of accuracies on few rows, could have these signs by chance: t assumes no ties."""
    pairs = len(gains)
    if len(np.unique(gains)) == pairs or pairs > _MAX_EXACT:
        return False
    signs = np.array(list(product((1, -1), repeat=pairs)))
    total = gains.sum()
    return float(np.mean(signs @ gains >= total - 1e-12 * abs(total))) > ERROR
