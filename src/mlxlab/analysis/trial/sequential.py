"""A group-sequential paired t-test: looks at the gains after every pair of runs, and stops as soon as they decide.

The error of all looks together is spent by a power function of the share of pairs (Lan & DeMets 1983, "Discrete
sequential boundaries for clinical trials"; Kim & DeMets 1987). The t statistic does not depend on the unknown variance,
so the boundaries are those of simulated normal gains, not of an approximation for many pairs. The intervals hold at all
looks at once (Jennison & Turnbull 1989, "Interim analyses: the repeated confidence interval approach").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from statistics import fmean, stdev
from typing import Literal

import numpy as np

from mlxlab.wording import percent

Verdict = Literal["keep", "discard", "undecided"]

ERROR = 0.025  # of a keep without a gain, over all looks
FUTILITY = 0.05  # a smaller chance to be kept in the end is a discard
MIN_PAIRS = 3
POWER = (
    1.5  # of the spending function: 1 spends evenly, more keeps more of the error for later looks
)
_PATHS = 400_000  # simulated for the boundaries, and
_DRAWS = 1_000  # for the chance to be kept
_MAX_EXACT = 14  # pairs up to which sign flips are enumerated


@dataclass(frozen=True)
class Look:
    """The gains of the pairs so far. `verdict` is None while more pairs may decide.

    Attributes:
        low, high: of the 95 % interval of the mean gain, valid at all looks at once.
        min_gain: the smallest gain worth keeping.
        chance: that the change is kept in the end, should the gains go on like this.
    """

    pairs: int
    mean: float
    low: float
    high: float
    min_gain: float
    chance: float
    verdict: Verdict | None
    reason: str


def look(gains: Sequence[float], min_gain: float, first: int, last: int) -> Look:
    """Decides by the gains of the pairs so far, positive where the change is better.

    Args:
        first, last: the numbers of pairs at the first and the last look.
    """
    n = len(gains)
    mean, bound = fmean(gains), boundaries(first, last).get(n, math.inf)
    error = stdev(gains) / math.sqrt(n) if n > 1 else math.inf
    margin = bound * error if error else 0.0
    low, high = mean - margin, mean + margin

    def result(verdict: Verdict | None, reason: str, chance: float) -> Look:
        return Look(n, mean, low, high, min_gain, chance, verdict, reason)

    if n < first:
        return result(None, "", math.nan)
    if not any(gains):
        return result("discard", "all results are those of the baseline", 0.0)
    if low > 0 and mean >= min_gain and not _may_be_chance(gains):
        return result("keep", "the interval of the gain is above 0", 1.0)
    if high < min_gain:
        reason = (
            "the interval of the gain is below 0"
            if high < 0
            else f"the gain is smaller than {min_gain:.3g}"
        )
        return result("discard", reason, 0.0)
    if n >= last:
        return result("undecided", f"no decision after {n} pairs", 0.0)
    chance = chance_to_keep(gains, min_gain, first, last)
    if chance < FUTILITY:
        reason = f"a gain would show within {last} pairs with a chance of {percent(chance, 0)} only"
        return result("discard", reason, chance)
    return result(None, "", chance)


@lru_cache
def boundaries(
    first: int, last: int, error: float = ERROR, power: float = POWER
) -> dict[int, float]:
    """Number of pairs -> the |t| above which the mean gain differs from 0, at looks after `first` to `last` pairs."""
    if first == last:
        from scipy.special import stdtrit

        return {last: float(stdtrit(last - 1, 1 - error))}
    random = np.random.default_rng(0)
    total, squares = np.zeros(_PATHS), np.zeros(_PATHS)
    bounds: dict[int, float] = {}
    spent = 0.0
    for n in range(1, last + 1):
        gains = random.standard_normal(len(total))
        total, squares = total + gains, squares + gains**2
        if n < first:
            continue
        statistic = np.abs(_t(total, squares, n))
        increment = 2 * (error * (n / last) ** power - spent)
        crossing = max(round(increment * _PATHS), 1)
        bounds[n] = float(np.partition(statistic, -crossing)[-crossing])
        inside = statistic < bounds[n]
        total, squares, spent = total[inside], squares[inside], error * (n / last) ** power
    return bounds


def chance_to_keep(gains: Sequence[float], min_gain: float, first: int, last: int) -> float:
    """The predictive probability of a keep at a later look (Spiegelhalter et al. 1986), by the gains so far.

    Mean and variance of the further gains are drawn from their distribution by these gains (reference prior).
    """
    n, bounds = len(gains), boundaries(first, last)
    random = np.random.default_rng(n)
    squares = sum((gain - fmean(gains)) ** 2 for gain in gains)
    sigma = np.sqrt(squares / random.chisquare(n - 1, _DRAWS))
    mean = fmean(gains) + sigma / math.sqrt(n) * random.standard_normal(_DRAWS)
    further = mean[:, None] + sigma[:, None] * random.standard_normal((_DRAWS, last - n))
    counts = np.arange(n + 1, last + 1)
    totals = sum(gains) + np.cumsum(further, axis=1)
    statistic = _t(totals, sum(gain**2 for gain in gains) + np.cumsum(further**2, axis=1), counts)
    crosses = (statistic > [bounds[count] for count in range(n + 1, last + 1)]) & (
        totals / counts >= min_gain
    )
    return float(np.mean(crosses.any(axis=1)))


def _t(total: np.ndarray, squares: np.ndarray, n: "int | np.ndarray") -> np.ndarray:
    """The t statistic of n values by their sum and sum of squares."""
    variance = np.maximum((squares - total**2 / n) / (n - 1), 1e-300)
    return np.asarray(total / n / np.sqrt(variance / n))


def _may_be_chance(gains: Sequence[float]) -> bool:
    """Whether equal gains, as of accuracies on few rows, could have these signs by chance: t assumes no ties."""
    n = len(gains)
    if len(set(gains)) == n or n > _MAX_EXACT:
        return False
    signs = np.array(list(product((1, -1), repeat=n)))
    return float(np.mean(signs @ np.array(gains) >= sum(gains) - 1e-12 * abs(sum(gains)))) > ERROR
