"""Ranks the configurations of a sweep over their seeds, and names a winner only if noise does not explain its lead.

The best of many configurations looks good by selection alone. Gutmann & Maymin (1987), "Is the selected population the
best?", show what corrects for that, whatever their number: the two-sided t-test of the best one against every other
must reject. Sood (2024), "Powerful rank verification for multivariate Gaussian data with any covariance structure",
extends it to paired and unequal numbers of seeds. With fewer than three seeds of a configuration no winner is named: its
results then say too little about its own noise.

A variance from a few seeds is uncertain, and one pooled over all configurations is wrong where some vary more than
others. Smyth (2004), "Linear models and empirical Bayes methods for assessing differential expression", weighs both:
the more the variances of the configurations agree, the more each is drawn to the pooled one, and the more degrees of
freedom a test has.

Which others are *worse than the best* is a claim about each of them: its p is multiplied by the number of all pairs of
configurations (Bonferroni), because the best one was selected too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import numpy as np

from mlxlab.stats import LEVEL
from mlxlab.stats.paired import t_quantile, two_sided_p

POWER_QUANTILE = 0.8416  # The quantile of the normal distribution for a power of 0.8.
MIN_SEEDS = 3  # A winner is named only if each configuration has as many.
MAX_SEEDS = 200  # More are not suggested.
_TINY = 1e-300

Standing = Literal["winner", "best mean", "may be the best", "worse", ""]


@dataclass(frozen=True)
class RankedConfiguration:
    """A configuration in the order of the ranking.

    Args:
        index: of its row.
        count: of its results.
        mean: over the results that are compared.
        margin: half the width of the confidence interval of the mean; NaN of a single result.
        lead: of the best one, positive; 0 for the best one.
        p: of the lead, two-sided, not corrected; NaN for the best one or if the noise is unknown.
        standing: "" if the noise is unknown.
    """

    index: int
    count: int
    mean: float
    margin: float
    lead: float
    p: float
    standing: Standing


@dataclass(frozen=True)
class Ranking:
    """Configurations from the best to the worst.

    Args:
        paired: the configurations are compared on common seeds, without what varies with the seed for all of them.
        closest: the configuration whose lead is the least certain; None without a comparison.
        seeds_needed: further seeds of each that would settle the lead over `closest` with a power of 0.8, if it is what
            it seems, and no fewer than MIN_SEEDS takes; None if more than MAX_SEEDS, or if there is nothing to settle.
    """

    entries: tuple[RankedConfiguration, ...]
    paired: bool
    closest: RankedConfiguration | None = None
    seeds_needed: int | None = None

    @property
    def winner(self) -> RankedConfiguration | None:
        return next((each for each in self.entries if each.standing == "winner"), None)

    @property
    def contenders(self) -> list[RankedConfiguration]:
        """The configurations that may be the best."""
        return [each for each in self.entries if each.standing not in ("worse", "")]

    @property
    def short(self) -> list[RankedConfiguration]:
        """The configurations with too few results for a winner to be named."""
        return [each for each in self.entries if each.count < MIN_SEEDS]


def as_table(results: Sequence[Mapping[str, float]]) -> np.ndarray:
    """(configurations, repetitions) of results by the name of the repetition; NaN where one is missing."""
    missing = dict.fromkeys(chain.from_iterable(results), np.nan)
    rows = [list({**missing, **each}.values()) for each in results]
    return np.array(rows).reshape(len(results), len(missing))


@dataclass(frozen=True)
class Noise:
    """The variance of one result of each configuration.

    Args:
        variances: (configurations,); the prior one for those with a single seed; NaN if all have one.
        degrees: degrees of freedom of a test that uses the variances; NaN if these are.
    """

    variances: np.ndarray
    degrees: float


@dataclass(frozen=True)
class _Scores:
    """Results that are compared, higher ones better, and how much they vary.

    Args:
        values: (configurations, seeds), NaN where one is missing.
        shared_rows: as in `rank`.
    """

    values: np.ndarray
    noise: Noise
    shared_rows: float

    @property
    def counts(self) -> np.ndarray:
        return np.isfinite(self.values).sum(axis=1)

    @property
    def variances_of_means(self) -> np.ndarray:
        return self.noise.variances * (1 / self.counts + self.shared_rows)


@np.errstate(over="ignore", invalid="ignore")
def rank(values: np.ndarray, *, minimised: bool, shared_rows: float = 0.0) -> Ranking:
    """Ranks configurations by their results (configurations, seeds), NaN where one is missing, but not all of a row.

    Args:
        shared_rows: test rows / training rows if the results are folds of a cross-validation: they share rows, which
            adds this to the 1 / n of the variance of a mean (Nadeau & Bengio 2003).
    """
    if len(values) == 0:
        return Ranking((), paired=False)
    sign = -1.0 if minimised else 1.0
    resolution = _resolution(values)
    scores = _Scores(sign * values, estimate_noise(values, 0, resolution), shared_rows)
    compared = scores
    blocks = _common_seeds(values)
    paired = bool(blocks.any())
    if paired:
        common = scores.values[:, blocks]
        complete = common[np.isfinite(common).all(axis=1)]
        # Leave out what each seed adds to all configurations that have all of them.
        without_seeds = common - (complete.mean(axis=0) - complete.mean())
        noise = estimate_noise(without_seeds, int(blocks.sum()) - 1, resolution)
        compared = _Scores(without_seeds, noise, shared_rows)

    means = np.nanmean(compared.values, axis=1)
    order = np.argsort(-means, kind="stable")
    best = order[0]
    p = _p_of_leads(compared, means, best)
    errors = np.sqrt(scores.variances_of_means)
    margins = np.where(scores.counts > 1, t_quantile(scores.noise.degrees) * errors, np.nan)
    standings = _standings(p, compared.counts, best)
    entries = tuple(
        RankedConfiguration(
            index=int(index),
            count=int(scores.counts[index]),
            mean=float(sign * means[index]),
            margin=float(margins[index]),
            lead=float(means[best] - means[index]),
            p=float(p[index]),
            standing=standings[index],
        )
        for index in order
    )
    if len(entries) == 1:
        return Ranking(entries, paired)
    if math.isnan(compared.noise.degrees):
        return Ranking(entries, paired, seeds_needed=MIN_SEEDS - 1)
    closest = max(entries[1:], key=lambda each: each.p)
    return Ranking(entries, paired, closest, _seeds_needed(entries[0], closest, compared))


def _resolution(values: np.ndarray) -> float:
    """The smallest difference of two values that are not equal; 0 if there is none."""
    finite = values[np.isfinite(values)]
    gaps = np.diff(np.unique(finite))
    gaps = gaps[gaps > 1e-9 * np.abs(finite).max()]
    return float(gaps.min()) if len(gaps) else 0.0


def _common_seeds(values: np.ndarray) -> np.ndarray:
    """Marks the columns that all configurations with several results have, if these are enough to compare them on."""
    present = np.isfinite(values)
    sizes = present.sum(axis=1)
    several = sizes > 1
    common = present[several].all(axis=0)
    if several.sum() >= 2:
        is_enough = common.sum() >= min(MIN_SEEDS, sizes[several].min())
        is_most = 2 * common.sum() >= sizes[several].max()
        if is_enough and is_most and present[:, common].any(axis=1).all():
            return common
    return np.zeros_like(common)


def _p_of_leads(scores: _Scores, means: np.ndarray, best: int) -> np.ndarray:
    """The p of the lead of the best configuration over each other one; NaN if the noise is unknown."""
    leads = means[best] - means
    variances = scores.variances_of_means
    errors = np.sqrt(variances[best] + variances)
    p = two_sided_p(leads / np.maximum(errors, _TINY), scores.noise.degrees)
    p = np.where(errors == 0, leads == 0, p)
    p[best] = np.nan
    return p


def _standings(p: np.ndarray, counts: np.ndarray, best: int) -> list[Standing]:
    if np.isnan(p).all():
        return [""] * len(p)
    is_won = counts.min() >= MIN_SEEDS and (np.delete(p, best) < 1 - LEVEL).all()
    num_pairs = len(p) * (len(p) - 1) / 2
    standings: list[Standing] = ["may be the best"] * len(p)
    for index in np.flatnonzero(is_won | (p * num_pairs < 1 - LEVEL)):
        standings[index] = "worse"
    standings[best] = "winner" if is_won else "best mean"
    return standings


def _seeds_needed(
    best: RankedConfiguration, closest: RankedConfiguration, scores: _Scores
) -> int | None:
    """Further results of each configuration at which a test would find the lead over `closest` with a power of 0.8."""
    if best.standing == "winner":
        return None
    missing = max(MIN_SEEDS - int(scores.counts.min()), 1)
    if closest.p < 1 - LEVEL:
        return missing
    if closest.lead <= 0:
        return None
    noise = scores.noise
    variance = noise.variances[best.index] + noise.variances[closest.index]
    for more in range(missing, MAX_SEEDS + 1):
        count = int(scores.counts[best.index]) + more
        quantile = t_quantile(max(noise.degrees, count - 1)) + POWER_QUANTILE
        error = math.sqrt(variance * (1 / count + scores.shared_rows))
        if closest.lead >= quantile * error:
            return more
    return None


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
