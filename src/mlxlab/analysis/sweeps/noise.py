"""How much results vary between the seeds of a configuration.

A variance from a few seeds is uncertain, and one pooled over all configurations is wrong where some vary more than
others. Smyth (2004), "Linear models and empirical Bayes methods for assessing differential expression", weighs both:
the more the variances of the configurations agree, the more each is drawn to the pooled one, and the more degrees of
freedom a test has.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True)
class Noise:
    """Variance of one result of each configuration, and the degrees of freedom of a test that uses it."""

    variances: Array  # by configuration; the prior one for those with a single seed
    degrees: float


def estimate_noise(
    residuals: Sequence[Array], shared_degrees: float, resolution: float
) -> Noise | None:
    """The noise of configurations, from the deviations of their results from the mean; None with single seeds only.

    Args:
        residuals: one array for each configuration.
        shared_degrees: degrees of freedom that the residuals lack in all, beyond one for each configuration.
        resolution: of the metric: results that differ by less are equal. Rounding adds a variance of its square / 12.
    """
    counts = np.array([len(each) - 1 for each in residuals], dtype=float)
    total = float(counts.sum() - shared_degrees)
    if total < 1:
        return None
    degrees = counts * total / counts.sum()
    squares = np.array([np.square(each).sum() for each in residuals])
    rounding = resolution**2 / 12
    pooled = squares.sum() / total + rounding
    several = counts > 0
    own = np.where(several, squares / np.where(several, degrees, 1) + rounding, pooled)
    prior, prior_degrees = _prior(own[several], degrees[several], pooled)
    if np.isinf(prior_degrees):
        return Noise(np.full(len(own), pooled), total)
    weight = np.where(several, degrees, 0)
    variances = (prior_degrees * prior + weight * own) / (prior_degrees + weight)
    return Noise(variances, min(prior_degrees + float(degrees[several].min()), total))


def _prior(variances: Array, degrees: Array, pooled: float) -> tuple[float, float]:
    """(variance, degrees of freedom) of the prior; infinitely many if the variances differ by chance only."""
    if len(variances) < 3 or not (variances > 0).all():
        return pooled, np.inf
    from scipy.special import digamma, polygamma

    half = degrees / 2
    logs = np.log(variances) - digamma(half) + np.log(half)
    excess = float(logs.var(ddof=1) - polygamma(1, half).mean())
    if excess <= 0:
        return pooled, np.inf
    prior = 2 * _inverse_trigamma(excess)
    return float(np.exp(logs.mean() + digamma(prior / 2) - np.log(prior / 2))), prior


def _inverse_trigamma(value: float) -> float:
    """The x > 0 with trigamma(x) = `value`, by Newton's method (Smyth 2004, appendix)."""
    from scipy.special import polygamma

    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = polygamma(1, x)
        step = trigamma * (1 - trigamma / value) / polygamma(2, x)
        x += float(step)
        if abs(step) < 1e-8 * x:
            break
    return x
