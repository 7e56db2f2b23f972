"""Records of trials that were not trained."""

from collections.abc import Iterable, Sequence
from typing import Any

from mlxlab.trial.record import Question, new_record

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
) -> Any:
    """A record of runs with these values of the baseline and the change."""
    record: Any = new_record(QUESTION | {"metric": metric}, "mlxlab trial")
    for seed, values in enumerate(pairs):
        for arm, value in zip(("baseline", "changed"), values, strict=True):
            run = {
                "seed": seed,
                "arm": arm,
                "folder": f"{seed}-{arm}",
                "digest": "",
                "value": value,
            }
            record["runs"].append(run | {"reused": False, "seconds": 1.0})
    return record | {"gains": list(gains), "looks": list(looks)}


def look(mean: float, low: float | None, high: float) -> Any:
    fields = {"pairs": 3, "mean": mean, "low": low, "high": high, "min_gain": 0.0, "chance": 0.0}
    return fields | {"verdict": "undecided", "reason": "no decision"}
