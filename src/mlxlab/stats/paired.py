"""Paired t-tests over seeds or folds.

Runs of the same seed and fold form a pair: they share data, split, batch order and initial weights.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlxlab.stats import LEVEL

Verdict = Literal[
    "significant gain",
    "significant loss",
    "no significant gain",
    "no difference in any pair",
    "one pair: no verdict",
    "no run in common: no verdict",
]


@dataclass(frozen=True)
class PairedDifference:
    """The mean of differences, positive where the method is better, and its confidence interval."""

    pairs: int
    mean: float
    low: float
    high: float
    p: float  # two-sided
    verdict: Verdict

    @property
    def interval(self) -> tuple[float, float] | None:
        return (self.low, self.high) if math.isfinite(self.low) else None


def paired_t_test(differences: np.ndarray, shared_rows: float = 0.0) -> PairedDifference:
    """Student's t-test of paired differences (N,).

    Args:
        shared_rows: as in `shared_rows_of`. Folds share training rows, so that the uncorrected test reports too many
            gains; the variance is corrected as in Nadeau & Bengio (2003), "Inference for the generalization error".
    """
    pairs = len(differences)
    mean = float(np.mean(differences)) if pairs else math.nan
    low = -math.inf
    high = math.inf
    p = 1.0
    if pairs > 1 and math.isfinite(mean):
        error = float(np.std(differences, ddof=1)) * math.sqrt(1 / pairs + shared_rows)
        margin = t_quantile(pairs - 1) * error
        low = mean - margin
        high = mean + margin
        p = float(mean == 0)
        if error:
            p = float(two_sided_p(mean / error, pairs - 1))
    return PairedDifference(pairs, mean, low, high, p, _verdict(pairs, low, high))


def _verdict(pairs: int, low: float, high: float) -> Verdict:
    """A gain or a loss only if the interval excludes 0."""
    if pairs == 0:
        return "no run in common: no verdict"
    if pairs == 1:
        return "one pair: no verdict"
    if low == high == 0:
        return "no difference in any pair"
    if low > 0:
        return "significant gain"
    if high < 0:
        return "significant loss"
    return "no significant gain"


def shared_rows_of(folds: int | None) -> float:
    """Test rows / training rows of the folds of a cross-validation; 0 for independent runs."""
    return 1 / (folds - 1) if folds else 0.0


def standard_error(values: np.ndarray) -> float:
    """The standard error of the mean; NaN of a single value."""
    if len(values) < 2:
        return math.nan
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def t_quantile(degrees: float) -> float:
    """The quantile of a two-sided test, or of an interval, at `LEVEL`."""
    from scipy.special import stdtrit  # It takes 0.2 s to import.

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def two_sided_p(t: np.ndarray | float, degrees: float) -> np.ndarray:
    from scipy.special import stdtr

    return np.asarray(2 * stdtr(degrees, -np.abs(t)))
