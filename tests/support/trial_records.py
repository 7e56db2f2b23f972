"""Records of trials that were not trained."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from mlxlab.sweep.trial.record import ARMS, LookRecord, Question, RunRecord, TrialRecord

OVERRIDES = {
    "baseline": ["data=titanic", "trainer.learning_rate=2e-3"],
    "changed": ["trainer.learning_rate=1e-5"],
}
QUESTION = Question(
    baseline="x",
    change=["trainer.learning_rate=1e-5"],
    overrides=OVERRIDES,
    metric="valid/loss",
    evaluation="best",
    min_gain=None,
    looks=[3, 3],
    first_seed=0,
    code={},
)
PAIRS = [(0.5, 0.75), (0.5, 0.25)]


def make_record(
    metric: str = "valid/loss",
    pairs: Iterable[Sequence[float]] = PAIRS,
    gains: Iterable[float] = (-0.25, 0.25),
    looks: Iterable[Any] = (),
) -> TrialRecord:
    """A record of runs with these values of the baseline and the change."""
    record = TrialRecord(replace(QUESTION, metric=metric), "mlxlab trial")
    for seed, values in enumerate(pairs):
        for arm, value in zip(ARMS, values, strict=True):
            record.runs.append(RunRecord(seed, arm, f"{seed}-{arm}", "", value, False, 1.0))
    return replace(record, gains=list(gains), looks=list(looks))


def look(mean: float, low: Any, high: float) -> LookRecord:
    return LookRecord(3, mean, low, high, 0.0, 0.0, "undecided", "no decision")
