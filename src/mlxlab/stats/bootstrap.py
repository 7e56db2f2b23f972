"""Bootstrap over examples: percentile intervals of metrics and of their differences (Efron and Tibshirani 1993)."""

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

from mlxlab.stats import LEVEL

RESAMPLES = 1000
MIN_RESAMPLES = 200
MAX_DRAWS = 20_000_000  # examples drawn in all resamples; more examples than 20,000 are resampled less often
CHUNK = 200_000  # counts at a time: they stay in the cache of the processor
# Examples on which two models differ: the sign test of fewer cannot be significant at 5 %.
MIN_DIFFERENT = 6

Statistic = Callable[
    [np.ndarray], np.ndarray
]  # counts (R, N), float64, of the examples in R resamples -> (R,) values
K = TypeVar("K", bound=Hashable)


def resample_count(examples: int) -> int:
    """The number of resamples: 1,000, or fewer of very many examples, but at least 200."""
    return min(RESAMPLES, max(MIN_RESAMPLES, MAX_DRAWS // max(examples, 1)))


def resample(statistics: Mapping[K, Statistic], examples: int) -> dict[K, np.ndarray]:
    """The values (R,) of every statistic on the same resamples of N examples, drawn with replacement.

    The resamples are a function of N alone: values of two statistics form pairs.
    """
    rng = np.random.default_rng(0)
    missing = resample_count(examples)
    values: dict[K, list[np.ndarray]] = {name: [np.zeros(0)] for name in statistics}
    while missing and examples:
        rows = min(missing, max(CHUNK // examples, 1))
        drawn = rng.integers(examples, size=(rows, examples)) + examples * np.arange(rows)[:, None]
        counts = (
            np.bincount(drawn.ravel(), minlength=rows * examples)
            .reshape(rows, examples)
            .astype(np.float64)
        )
        for name, statistic in statistics.items():
            values[name].append(statistic(counts))
        missing -= rows
    return {name: np.concatenate(chunks) for name, chunks in values.items()}


def interval(values: np.ndarray) -> tuple[float, float]:
    """The central 95 % of resampled values; those that are not finite do not count, NaN if none is left."""
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def gain_interval(
    values: np.ndarray, different: int, examples: int, *, is_proportion: bool
) -> tuple[float, float]:
    """The interval of a difference of two models; it includes 0 if they differ on less than `MIN_DIFFERENT` examples.

    Args:
        is_proportion: it is one of proportions, where even of equal predictions the interval has a width.
    """
    low, high = interval(values)
    if different >= MIN_DIFFERENT:
        return low, high
    margin = proportion_interval(0.0, examples)[1] if is_proportion else 0.0
    return min(low, -margin), max(high, margin)


def proportion_interval(proportion: float, examples: int) -> tuple[float, float]:
    """The exact 95 % interval of a proportion of 0 or 1 (Clopper and Pearson 1934): the bootstrap's has no width."""
    margin = 1 - ((1 - LEVEL) / 2) ** (1 / max(examples, 1))
    if proportion == 1:
        return 1 - margin, 1.0
    return 0.0, margin
