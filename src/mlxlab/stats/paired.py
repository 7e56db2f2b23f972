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

    @property
    def verdict(self) -> Verdict:
        """A gain or a loss only if the interval excludes 0."""
        if self.pairs == 0:
            return "no run in common: no verdict"
        if self.pairs == 1:
            return "one pair: no verdict"
        if self.low == self.high == 0:
            return "no difference in any pair"
        if self.low > 0:
            return "significant gain"
        if self.high < 0:
            return "significant loss"
        return "no significant gain"


def paired_t_test(differences: np.ndarray, shared_rows: float = 0.0) -> PairedDifference:
    """Student's t-test of paired differences (N,).

    Args:
        shared_rows: as in `shared_rows_of`. Folds share training rows, so that the uncorrected test reports too many
            gains; the variance is corrected as in Nadeau & Bengio (2003), "Inference for the generalization error".
    """
    pairs = len(differences)
    mean = float(np.mean(differences)) if pairs else math.nan
    if pairs < 2 or not math.isfinite(mean):
        return PairedDifference(pairs, mean, -math.inf, math.inf, 1.0)
    error = float(np.std(differences, ddof=1)) * math.sqrt(1 / pairs + shared_rows)
    margin = t_quantile(pairs - 1) * error
    p = float(mean == 0)
    if error:
        p = float(two_sided_p(mean / error, pairs - 1))
    return PairedDifference(pairs, mean, mean - margin, mean + margin, p)


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
