"""The JSON file of a comparison."""

from typing import NotRequired, TypedDict

from mlxlab.analysis.comparison import Evaluation
from mlxlab.analysis.comparison_subject import Subject


class GainFields(TypedDict):
    """Of a method on the reference; null is not finite."""

    pairs: int
    mean: float | None
    low: float | None
    high: float | None
    p: float | None
    verdict: str


class MethodFields(TypedDict):
    """One method: its values by run, with their mean and standard error."""

    name: str
    values: dict[str, float | None]
    parameters: float | None
    speed: float | None
    steps: float | None
    folds: list[int]
    mean: float | None
    error: float | None
    gain: NotRequired[GainFields]


class ComparisonFields(TypedDict):
    """The comparison itself."""

    metric: str
    against: str
    level: float
    test: str
    evaluation: NotRequired[Evaluation]
    subject: NotRequired[Subject]
    verdict: NotRequired[str]  # of a cross-validation: the reference against its best baseline
    warnings: NotRequired[list[str]]  # of its runs
    methods: list[MethodFields]
