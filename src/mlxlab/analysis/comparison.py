"""Is a method better than another, by more than chance? Paired differences over seeds or folds, and their interval.

Every method is measured in runs that have names (`seed 0`, `seed 0 fold 3`); a pair is two methods' runs of one name,
which share what the name stands for: data, split, order, first weights. Nothing is claimed that the interval does not
carry: no significant gain is said to be none, and of a single pair nothing is said.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mlxlab.analysis import student_t
from mlxlab.metric_names import lower_is_better


@dataclass(frozen=True)
class MethodResults:
    """What one method reached, by the name of the run."""

    name: str
    values: Mapping[str, float]
    parameters: int | None = None
    speed: float | None = None  # tokens or examples a second
    steps: int | None = None  # updates of each run

    @property
    def mean(self) -> float:
        return sum(self.values.values()) / len(self.values) if self.values else math.nan

    @property
    def error(self) -> float:
        """Standard error of the mean; NaN of a single run."""
        return _deviation(list(self.values.values())) / math.sqrt(len(self.values)) if self.values else math.nan


@dataclass(frozen=True)
class PairedDifference:
    """The mean of (method - reference) over pairs, turned so that more is better, and its confidence interval."""

    pairs: int
    mean: float
    low: float
    high: float
    p: float  # two-sided

    @property
    def verdict(self) -> str:
        if self.pairs < 2:
            return "one pair: nothing can be said" if self.pairs else "no run in common: nothing can be said"
        if self.low > 0:
            return "significant gain"
        return "significant loss" if self.high < 0 else "no significant gain"


@dataclass(frozen=True)
class Comparison:
    """Methods beside a reference.

    Args:
        metric: what was measured, `valid/accuracy` say.
        against: name of the reference.
        gains: by the name of every other method.
        share: test rows over training rows where the runs are folds of a cross-validation, else 0.
        level: of the intervals.
    """

    metric: str
    series: Sequence[MethodResults]
    against: str
    gains: dict[str, PairedDifference] = field(default_factory=dict)
    share: float = 0.0
    level: float = 0.95

    @property
    def minimised(self) -> bool:
        return lower_is_better(self.metric)

    def named(self, name: str) -> MethodResults:
        return next(series for series in self.series if series.name == name)


def compare(
    metric: str, series: Sequence[MethodResults], against: str, *, folds: int | None = None, level: float = 0.95
) -> Comparison:
    """Every method against one of them.

    Args:
        metric: losses, perplexity and bits per byte are better the lower they are, all others the higher.
        folds: of the cross-validation that the runs are from; None if they are independent (seeds alone).

    Raises:
        ValueError: no method is called `against`, or two have the same name.
    """
    names = [one.name for one in series]
    if against not in names or len(set(names)) < len(names):
        raise ValueError(f"against={against}: expected one of {', '.join(names)}, each once")
    share = 1 / (folds - 1) if folds else 0.0
    empty = Comparison(metric, tuple(series), against, {}, share, level)
    reference = empty.named(against).values
    sign = -1 if empty.minimised else 1
    gains = {}
    for one in series:
        if one.name != against:
            shared = [run for run in one.values if run in reference]
            gains[one.name] = paired_t_test([sign * (one.values[run] - reference[run]) for run in shared], share, level)
    return Comparison(metric, tuple(series), against, gains, share, level)


def paired_t_test(differences: Sequence[float], share: float = 0.0, level: float = 0.95) -> PairedDifference:
    """Student's t of paired differences.

    With `share`, test rows over training rows, the variance is that of Nadeau & Bengio (2003), "Inference for the
    generalization error": folds share training rows, and the plain test would find gains where there are none.
    """
    n = len(differences)
    mean = sum(differences) / n if n else math.nan
    if n < 2 or not math.isfinite(mean):
        return PairedDifference(n, mean, -math.inf, math.inf, 1.0)
    error = _deviation(differences) * math.sqrt(1 / n + share)
    reach = student_t.quantile((1 + level) / 2, n - 1) * error
    p = 2 * student_t.tail_probability(abs(mean) / error, n - 1) if error else float(mean == 0)
    return PairedDifference(n, mean, mean - reach, mean + reach, p)


def method_of(comparison: Comparison) -> str:
    """Which test it is, for the reader."""
    if comparison.share:
        return "paired t over folds and seeds with the variance corrected for shared rows (Nadeau & Bengio 2003)"
    return "paired t over seeds"


def summary_sentence(comparison: Comparison, name: str) -> str:
    """One method against the reference, as a sentence."""
    gain, metric = comparison.gains[name], comparison.metric
    told = f"{name} against {comparison.against}, {metric}: "
    if gain.pairs < 2:
        return f"{told}{gain.verdict}."
    turned = "lower" if comparison.minimised else "higher"
    interval = f"{comparison.level:.0%} interval {gain.low:+.4g} to {gain.high:+.4g}, p {gain.p:.2g}"
    return f"{told}{gain.mean:+.4g} {turned} ({interval}, {gain.pairs} pairs): {gain.verdict}."


def metrics_of(comparison: Comparison) -> dict[str, float]:
    """The figures for a store: the mean of every method, its gain and the gain's interval."""
    found = {f"{one.name}/{comparison.metric}": one.mean for one in comparison.series}
    for name, gain in comparison.gains.items():
        if gain.pairs > 1:
            found |= {f"{name}/gain": gain.mean, f"{name}/gain_low": gain.low, f"{name}/gain_high": gain.high}
    return found


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample; NaN of fewer than two."""
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else math.nan
