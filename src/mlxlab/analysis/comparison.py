"""Compares methods, as their run folders record them, by paired t-tests over seeds or folds.

Two methods' runs of the same name (`seed 0 fold 3`) form a pair: they share data, split, batch order and initial
weights. A gain or loss is reported only if the interval excludes 0; a single pair gives no verdict.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from mlxlab.errors import DataError
from mlxlab.schema.metric_names import sign_of
from mlxlab.stats.paired import PairedDifference, paired_t_test, shared_rows_of, standard_error

Evaluation = Literal["last", "best"]  # the evaluation of a run whose metrics are compared
_OVER_SEEDS = "paired t-test over seeds"
_OVER_FOLDS = "paired t-test over folds and seeds, corrected for overlapping training sets (Nadeau & Bengio 2003)"


@dataclass(frozen=True)
class Subject:
    """What the runs have in common, and what differs.

    Attributes:
        trained: the model and the data; several if the methods differ in them.
        differs: by config key the value of each method; null if fewer than two methods have runs.
        baselines: of the data, in the metric of the comparison.
    """

    trained: str = ""
    differs: dict[str, dict[str, str]] | None = None
    baselines: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodResults:
    """Metric values of one method by the name of the run; None and NaN are not finite.

    Args:
        speed: in tokens/s.
        steps: of each run.
        folds: of its cross-validations; empty if the runs are independent (seeds only).
        mean, error: of the values, with the standard error; `compare` sets them.
        gain: on the reference; `compare` sets it.
    """

    name: str
    values: dict[str, float | None]
    parameters: float | None = None
    speed: float | None = None
    steps: float | None = None
    folds: tuple[int, ...] = ()
    mean: float = math.nan
    error: float = math.nan
    gain: PairedDifference | None = None


@dataclass(frozen=True)
class Comparison:
    """Methods compared with a reference method.

    Args:
        metric: for example valid/accuracy.
        against: name of the reference.
        judged: the method that is judged by the baselines of the data.
        test: name of the statistical test.
        methods: the best one first.
        warnings: of the runs.
        notes: on how the values came about.
    """

    metric: str
    against: str
    judged: str
    test: str
    evaluation: Evaluation
    methods: list[MethodResults]
    subject: Subject
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    command: str = ""

    @property
    def gains(self) -> dict[str, PairedDifference]:
        """The gains of all methods but the reference, by their names."""
        return {each.name: each.gain for each in self.methods if each.gain is not None}

    def method(self, name: str) -> MethodResults:
        return next(each for each in self.methods if each.name == name)


def compare(
    metric: str,
    methods: Sequence[MethodResults],
    against: str,
    evaluation: Evaluation = "last",
    subject: Subject | None = None,
) -> Comparison:
    """Compares every method with the reference `against`; lower losses and errors are better.

    Raises DataError if the runs are of cross-validations with different numbers of folds.
    """
    reference = next(method for method in methods if method.name == against)
    folds = sorted(set[int]().union(*(method.folds for method in methods)))
    if len(folds) > 1:
        raise DataError(
            f"runs of cross-validations with {', '.join(map(str, folds))} folds: expected the same"
        )
    test = _OVER_SEEDS
    shared_rows = 0.0
    if folds:
        test = _OVER_FOLDS
        shared_rows = shared_rows_of(folds[0])
    compared = []
    for method in methods:
        gain = None
        if method.name != against:
            gain = _gain(metric, method, reference, shared_rows)
        numbers = np.array([*method.values.values()], float)
        mean = math.nan
        if len(numbers):
            mean = float(np.mean(numbers))
        compared.append(replace(method, mean=mean, error=standard_error(numbers), gain=gain))
    sign = sign_of(metric)
    compared.sort(key=lambda each: (math.isnan(each.mean), -sign * each.mean))
    return Comparison(
        metric=metric,
        against=against,
        judged=compared[0].name,
        test=test,
        evaluation=evaluation,
        methods=compared,
        subject=subject or Subject(),
    )


def _gain(
    metric: str, method: MethodResults, reference: MethodResults, shared_rows: float
) -> PairedDifference:
    runs = [run for run in method.values if run in reference.values]
    ours = np.array([method.values[run] for run in runs], float)
    theirs = np.array([reference.values[run] for run in runs], float)
    return paired_t_test(sign_of(metric) * (ours - theirs), shared_rows)
