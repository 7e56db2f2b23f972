"""Ranks the configurations of a sweep over their seeds, and names a winner only if noise does not explain its lead.

The best of many configurations looks good by selection alone. Gutmann & Maymin (1987), "Is the selected population the
best?", show what corrects for that, whatever their number: the two-sided t-test of the best one against every other
must reject. Sood (2024), "Powerful rank verification for multivariate Gaussian data with any covariance structure",
extends it to paired and unequal numbers of seeds. The variance is that of `noise`. With fewer than three seeds of a
configuration no winner is named: its results then say too little about its own noise.

Which others are *worse than the best* is a claim about each of them: its p is multiplied by the number of all pairs of
configurations (Bonferroni), because the best one was selected too.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from mlxlab.analysis.comparison import LEVEL
from mlxlab.analysis.sweeps.noise import Array, Noise, estimate_noise

POWER_QUANTILE = 0.8416  # of the normal distribution, for a power of 0.8
MIN_SEEDS = 3  # of each configuration, for a winner
MAX_SEEDS = 200  # that are suggested to settle a comparison

Standing = Literal["winner", "best mean", "may be the best", "worse", ""]
Results = Mapping[
    str, float
]  # of a configuration: name of the repetition (`seed 0 fold 1`) -> value


@dataclass(frozen=True)
class RankedConfiguration:
    """A configuration in the order of the ranking.

    Args:
        index: of the configuration in the arguments of `rank`.
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
        """Those that may be the best."""
        return [each for each in self.entries if each.standing not in ("worse", "")]

    @property
    def short(self) -> list[RankedConfiguration]:
        """Those with too few results for a winner to be named."""
        return [each for each in self.entries if each.count < MIN_SEEDS]


@np.errstate(over="ignore", invalid="ignore")
def rank(configurations: Sequence[Results], *, minimised: bool, test_ratio: float = 0.0) -> Ranking:
    """Ranks configurations, each with one finite result or more.

    Args:
        test_ratio: test rows / training rows if the results are folds of a cross-validation: they share rows, which
            adds this to the 1 / n of the variance of a mean (Nadeau & Bengio 2003).
    """
    if not configurations:
        return Ranking((), False)
    sign = -1.0 if minimised else 1.0
    raw = [sign * np.array([*results.values()]) for results in configurations]
    blocks = _common_repetitions(configurations)
    values = _without_block_effects(configurations, blocks, sign) if blocks else raw
    resolution = _resolution(np.concatenate(raw))
    noise = estimate_noise(_residuals(values), max(len(blocks) - 1, 0), resolution)
    means, counts = (
        np.array([each.mean() for each in values]),
        np.array([len(each) for each in values]),
    )
    order = [int(index) for index in np.argsort(-means, kind="stable")]
    p, margins = (
        _p_values(means, counts, noise, order[0], test_ratio),
        _margins(raw, resolution, test_ratio),
    )
    standings, leads = _standings(p, counts, order[0]), means[order[0]] - means
    entries = tuple(
        RankedConfiguration(
            i, len(raw[i]), sign * means[i], margins[i], leads[i], p[i], standings[i]
        )
        for i in order
    )
    if len(entries) == 1:
        return Ranking(entries, bool(blocks))
    if noise is None:
        return Ranking(entries, bool(blocks), None, MIN_SEEDS - 1)
    closest = max(entries[1:], key=lambda each: each.p)
    needed = _seeds_needed(entries[0], closest, counts, noise, test_ratio)
    return Ranking(entries, bool(blocks), closest, needed)


def _residuals(values: Sequence[Array]) -> list[Array]:
    return [each - each.mean() for each in values]


def _p_values(
    means: Array, counts: Array, noise: Noise | None, best: int, test_ratio: float
) -> list[float]:
    """Of the lead of the best configuration over each other one."""
    if noise is None:
        return [math.nan] * len(means)
    from scipy.special import stdtr

    errors = noise.variances * (1 / counts + test_ratio)
    p = []
    for index, mean in enumerate(means):
        lead, error = float(means[best] - mean), math.sqrt(errors[best] + errors[index])
        p.append(float(2 * stdtr(noise.degrees, -lead / error)) if error else float(lead == 0))
    p[best] = math.nan
    return p


def _margins(values: Sequence[Array], resolution: float, test_ratio: float) -> list[float]:
    """Half the width of the confidence interval of each mean; NaN of a single value."""
    counts = np.array([len(each) for each in values])
    noise = estimate_noise(_residuals(values), 0, resolution)
    if noise is None:
        return [math.nan] * len(counts)
    margins = _t_quantile(noise.degrees) * np.sqrt(noise.variances * (1 / counts + test_ratio))
    return list(np.where(counts > 1, margins, math.nan))


def _standings(p: list[float], counts: Array, best: int) -> list[Standing]:
    others, alpha = [each for index, each in enumerate(p) if index != best], 1 - LEVEL
    if not others or math.isnan(others[0]):
        return [""] * len(p)
    pairs = len(p) * (len(p) - 1) / 2
    is_won = counts.min() >= MIN_SEEDS and max(others) < alpha
    standings: list[Standing] = [
        "worse" if is_won or each * pairs < alpha else "may be the best" for each in p
    ]
    standings[best] = "winner" if is_won else "best mean"
    return standings


def _seeds_needed(
    best: RankedConfiguration,
    closest: RankedConfiguration,
    counts: Array,
    noise: Noise,
    test_ratio: float,
) -> int | None:
    """Further results of each configuration at which a test would find the lead over `closest` with a power of 0.8."""
    if best.standing == "winner":
        return None
    variance, count = (
        float(noise.variances[best.index] + noise.variances[closest.index]),
        int(counts[best.index]),
    )

    def is_enough(n: int) -> bool:
        quantile = _t_quantile(max(noise.degrees, n - 1)) + POWER_QUANTILE
        return closest.lead > 0 and closest.lead >= quantile * math.sqrt(
            variance * (1 / n + test_ratio)
        )

    missing = max(MIN_SEEDS - int(counts.min()), 1)
    more = (
        bisect_left(range(missing, MAX_SEEDS + 1), True, key=lambda more: is_enough(count + more))
        + missing
    )
    return missing if closest.p < 1 - LEVEL else more if more <= MAX_SEEDS else None


def _t_quantile(degrees: float) -> float:
    """Of a two-sided test, or of an interval."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + LEVEL) / 2))


def _common_repetitions(configurations: Sequence[Results]) -> list[str]:
    """The repetitions that all configurations with several have, if these are enough to compare them on; else none."""
    several = [results for results in configurations if len(results) > 1]
    if len(several) < 2:
        return []
    common = [name for name in several[0] if all(name in results for results in several)]
    sizes = [len(results) for results in several]
    is_most = len(common) >= min(MIN_SEEDS, *sizes) and 2 * len(common) >= max(sizes)
    return (
        common
        if is_most and all(any(name in results for name in common) for results in configurations)
        else []
    )


def _without_block_effects(
    configurations: Sequence[Results], blocks: list[str], sign: float
) -> list[Array]:
    """The results of the common repetitions, less what each of these adds to all configurations."""
    complete = [results for results in configurations if all(name in results for name in blocks)]
    level = fmean(fmean(results[name] for name in blocks) for results in complete)
    effects = {name: fmean(results[name] for results in complete) - level for name in blocks}
    return [
        np.array([sign * (results[name] - effects[name]) for name in blocks if name in results])
        for results in configurations
    ]


def _resolution(values: Array) -> float:
    """The smallest difference of two values that are not equal."""
    gaps = np.diff(np.unique(values))
    gaps = gaps[gaps > 1e-9 * np.abs(values).max()] if len(gaps) else gaps
    return float(gaps.min()) if len(gaps) else 0.0
