"""Compares methods, as their run folders record them, by paired t-tests over seeds or folds.

Two methods' runs of the same name (`seed 0 fold 3`) form a pair: they share data, split, batch order and initial
weights. A gain or loss is reported only if the interval excludes 0; a single pair gives no verdict.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from mlxlab.analysis.comparison_numbers import decimals_of, direction, fixed
from mlxlab.analysis.comparison_subject import Subject
from mlxlab.errors import DataError
from mlxlab.metric_names import lower_is_better
from mlxlab.wording import one_of, percent

LEVEL = 0.95  # confidence level of the intervals
Evaluation = Literal["last", "best"]  # of a run: whose metrics are compared
EVALUATIONS: Mapping[Evaluation, str] = {
    "last": "last evaluation of each run",
    "best": "best evaluation of each run",
}


@dataclass(frozen=True)
class MethodResults:
    """Metric values of one method by the name of the run."""

    name: str
    values: Mapping[str, float]
    parameters: float | None = None
    speed: float | None = None  # tokens/s
    steps: float | None = None  # optimizer steps of each run
    folds: tuple[
        int, ...
    ] = ()  # of its cross-validations; empty if the runs are independent (seeds only)

    @property
    def mean(self) -> float:
        return fmean(self.values.values()) if self.values else math.nan

    @property
    def error(self) -> float:
        """Standard error of the mean; NaN of a single run."""
        n = len(self.values)
        return stdev(self.values.values()) / math.sqrt(n) if n > 1 else math.nan


@dataclass(frozen=True)
class PairedDifference:
    """Mean of (method - reference) over pairs, its sign flipped for minimised metrics, and its confidence interval."""

    pairs: int
    mean: float
    low: float
    high: float
    p: float  # two-sided

    @property
    def verdict(self) -> str:
        if self.pairs < 2:
            return "one pair: no verdict" if self.pairs else "no run in common: no verdict"
        if self.low == self.high == 0:
            return "no difference in any pair"
        if self.low > 0:
            return "significant gain"
        return "significant loss" if self.high < 0 else "no significant gain"


@dataclass(frozen=True)
class Comparison:
    """Methods compared with a reference method."""

    metric: str  # for example valid/accuracy
    methods: Sequence[MethodResults]
    against: str  # name of the reference
    gains: dict[
        str, PairedDifference
    ]  # difference to the reference, by the name of every other method
    test_ratio: (
        float  # test rows / training rows if the runs are folds of a cross-validation, else 0
    )
    evaluation: Evaluation = "last"
    subject: Subject | None = None
    verdict: str = ""  # on the reference, of a cross-validation
    warnings: Sequence[str] = ()  # of its runs

    @property
    def minimised(self) -> bool:
        return lower_is_better(self.metric)

    @property
    def decimals(self) -> int:
        """Of all its values and differences."""
        return decimals_of(
            [
                *(method.mean for method in self.methods),
                *(gain.mean for gain in self.gains.values()),
            ]
        )

    @property
    def test(self) -> str:
        """Name of the statistical test."""
        if self.test_ratio:
            return "paired t over folds and seeds with the variance corrected for shared rows (Nadeau & Bengio 2003)"
        return "paired t over seeds"

    def sentence(self, name: str) -> str:
        gain, subject = self.gains[name], f"{name} against {self.against}, {self.metric}: "
        if gain.pairs < 2:
            return f"{subject}{gain.verdict}."
        if gain.low == gain.high == 0:
            return f"{subject}{gain.verdict} ({gain.pairs} pairs)."
        mean, low, high = (
            fixed(value, self.decimals, signed=True) for value in (gain.mean, gain.low, gain.high)
        )
        interval = f"gain {mean}, {percent(LEVEL, 0)} interval {low} to {high}, p {gain.p:.2g}"
        size = "equal on average"
        if gain.mean:
            how = direction(gain.mean, minimised=self.minimised)
            size = f"{fixed(abs(gain.mean), self.decimals)} {how}"
        return f"{subject}{size} ({interval}, {gain.pairs} pairs): {gain.verdict}."

    def metrics(self) -> dict[str, float]:
        """For the tracking store: mean of every method, its gain and the interval of the gain."""
        metrics = {f"{method.name}/{self.metric}": method.mean for method in self.methods}
        for name, gain in self.gains.items():
            if gain.pairs > 1:
                metrics |= {
                    f"{name}/gain": gain.mean,
                    f"{name}/gain_low": gain.low,
                    f"{name}/gain_high": gain.high,
                }
        return metrics


def compare(
    metric: str,
    methods: Sequence[MethodResults],
    against: str,
    evaluation: Evaluation = "last",
    subject: Subject | None = None,
) -> Comparison:
    """Compares every method with the reference `against`; lower losses and errors are better.

    Raises:
        ValueError: no method is called `against`, or two have the same name.
        DataError: the runs are of cross-validations with different numbers of folds.
    """
    by_name = {method.name: method.values for method in methods}
    if against not in by_name or len(by_name) < len(methods):
        raise ValueError(f"against={against}: expected {one_of(by_name)}, each once")
    folds = sorted({number for method in methods for number in method.folds})
    if len(folds) > 1:
        raise DataError(
            f"runs of cross-validations with {', '.join(map(str, folds))} folds: expected the same"
        )
    test_ratio = 1 / (folds[0] - 1) if folds else 0.0
    reference = by_name.pop(against)
    sign = -1 if lower_is_better(metric) else 1
    gains = {}
    for name, values in by_name.items():
        differences = [
            sign * (value - reference[run]) for run, value in values.items() if run in reference
        ]
        gains[name] = paired_t_test(differences, test_ratio)
    return Comparison(metric, tuple(methods), against, gains, test_ratio, evaluation, subject)


def paired_t_test(differences: Sequence[float], test_ratio: float = 0.0) -> PairedDifference:
    """Student's t-test of paired differences.

    With `test_ratio` > 0 (test rows / training rows) the variance is corrected as in Nadeau & Bengio (2003), "Inference
    for the generalization error": folds share training rows, so the uncorrected test reports too many gains.
    """
    from scipy.special import stdtr, stdtrit  # slow to import

    n = len(differences)
    mean = fmean(differences) if n else math.nan
    if n < 2 or not math.isfinite(mean):
        return PairedDifference(n, mean, -math.inf, math.inf, 1.0)
    error = stdev(differences) * math.sqrt(1 / n + test_ratio)
    margin = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * error
    p = float(2 * stdtr(n - 1, -abs(mean) / error)) if error else float(mean == 0)
    return PairedDifference(n, mean, mean - margin, mean + margin, p)
