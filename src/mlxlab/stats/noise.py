"""How much results vary between the seeds of a configuration.

A variance from a few seeds is uncertain, and one pooled over all configurations is wrong where some vary more than
others. Smyth (2004), "Linear models and empirical Bayes methods for assessing differential expression", weighs both:
the more the variances of the configurations agree, the more each is drawn to the pooled one, and the more degrees of
freedom a test has.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Noise:
    """The variance of one result of each configuration.

    Args:
        variances: (configurations,); the prior one for those with a single seed; NaN if all have one.
        degrees: degrees of freedom of a test that uses the variances; NaN if these are.
    """

    variances: np.ndarray
    degrees: float


def estimate_noise(values: np.ndarray, shared_degrees: int, resolution: float) -> Noise:
    """The noise of results (configurations, seeds), NaN where one is missing.

    Args:
        shared_degrees: degrees of freedom that the results lack in all, beyond one for each configuration.
        resolution: of the metric: results that differ by less are equal. Rounding adds a variance of its square / 12.
    """
    counts = np.isfinite(values).sum(axis=1) - 1
    total = counts.sum() - shared_degrees
    if total < 1:
        return Noise(np.full(len(values), np.nan), np.nan)
    degrees = counts * total / counts.sum()
    residuals = values - np.nanmean(values, axis=1, keepdims=True)
    squares = np.nansum(residuals**2, axis=1)
    rounding = resolution**2 / 12
    pooled = squares.sum() / total + rounding

    several = counts > 0
    own = np.full(len(values), pooled)
    own[several] = squares[several] / degrees[several] + rounding
    prior = _fit_prior(own[several], degrees[several])
    if prior is None:
        return Noise(np.full(len(values), pooled), total)
    weighted = prior.degrees * prior.variance + degrees * own
    least = prior.degrees + float(degrees[several].min())
    return Noise(weighted / (prior.degrees + degrees), min(least, total))


@dataclass(frozen=True)
class _Prior:
    """The variance that those of all configurations are drawn to, worth so many degrees of freedom."""

    variance: float
    degrees: float


def _fit_prior(variances: np.ndarray, degrees: np.ndarray) -> _Prior | None:
    """The prior of some variances; None if chance explains how they differ."""
    if len(variances) < 3 or not (variances > 0).all():
        return None
    from scipy.special import digamma, polygamma  # It takes 0.2 s to import.

    half = degrees / 2
    logs = np.log(variances) - digamma(half) + np.log(half)
    excess = float(logs.var(ddof=1) - polygamma(1, half).mean())
    if excess <= 0:
        return None
    prior = _inverse_trigamma(excess)
    log_variance = logs.mean() + digamma(prior) - np.log(prior)
    return _Prior(float(np.exp(log_variance)), 2 * prior)


def _inverse_trigamma(value: float) -> float:
    """The x > 0 with trigamma(x) = `value`. 1 / trigamma is nearly a straight line (Smyth 2004, appendix)."""
    from scipy.optimize import newton
    from scipy.special import polygamma

    def error(x: float) -> float:
        return float(1 / polygamma(1, x) - 1 / value)

    return float(newton(error, 0.5 + 1 / value, tol=1e-13, rtol=1e-13))
