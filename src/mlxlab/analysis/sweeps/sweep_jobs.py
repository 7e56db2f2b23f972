"""The jobs of a sweep with their results, and its configurations: jobs that differ only in the seed or fold."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from mlxlab.schema.metric_names import lower_is_better
from mlxlab.stats.paired import shared_rows_of

# Keys that repeat a configuration -> their names in words.
REPETITIONS = {"seed": "seed", "data.fold": "fold"}
_Value: TypeAlias = int | float | str
State = Literal["finished", "failed", "paused", "unfinished"]


@dataclass(frozen=True)
class SweepJob:
    """One job and what came of it.

    Args:
        overrides: by key, as typed.
        value: of the objective, finite; None unless it finished.
        reason: why it has no value.
    """

    number: int
    overrides: dict[str, str]
    state: State
    value: float | None = None
    reason: str = ""
    seconds: float = 0.0  # sum over all attempts
    folder: Path = Path()

    @property
    def repetition(self) -> str:
        """`seed 0 fold 1`; "" if neither is set."""
        pairs = ((name, self.overrides.get(key)) for key, name in REPETITIONS.items())
        return " ".join(f"{name} {value}" for name, value in pairs if value is not None)


@dataclass(frozen=True)
class Sweep:
    """A sweep. The objective ranks its configurations; `folds` of a cross-validation."""

    name: str
    objective: str
    jobs: tuple[SweepJob, ...]
    folds: int | None = None

    @property
    def minimised(self) -> bool:
        return lower_is_better(self.objective)

    @property
    def swept(self) -> list[str]:
        """Keys that the jobs differ in, without seed and fold."""
        keys = dict.fromkeys(
            key for job in self.jobs for key in job.overrides if key not in REPETITIONS
        )
        return [key for key in keys if len({job.overrides.get(key) for job in self.jobs}) > 1]

    @property
    def fixed(self) -> list[str]:
        """Overrides that all jobs share."""
        first = self.jobs[0].overrides if self.jobs else {}
        return [
            f"{key}={value}"
            for key, value in first.items()
            if key not in (*self.swept, *REPETITIONS)
        ]

    @property
    def repetition(self) -> str:
        """What a result of a configuration is: a seed, a fold, or a run."""
        varied = []
        for key, name in REPETITIONS.items():
            if len({job.overrides.get(key) for job in self.jobs}) > 1:
                varied.append(name)
        return "run" if len(varied) > 1 else "".join(varied) or "seed"

    @property
    def test_ratio(self) -> float:
        """Test rows / training rows of a fold."""
        return shared_rows_of(self.folds)

    def count(self, state: State) -> int:
        return sum(job.state == state for job in self.jobs)


@dataclass(frozen=True)
class Configuration:
    """What jobs with the same values of the swept keys have in common; `results` by repetition.

    Args:
        point: its values by key, in full precision.
    """

    point: dict[str, str]
    jobs: tuple[SweepJob, ...]

    @property
    def labels(self) -> dict[str, str]:
        """The values by key, with six digits."""
        values = {key: _value(text) for key, text in self.point.items()}
        return {
            key: f"{value:.6g}" if isinstance(value, float) else self.point[key]
            for key, value in values.items()
        }

    @property
    def name(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.labels.items())

    @property
    def short_name(self) -> str:
        """Without the paths of the keys, if their last parts tell them apart."""
        names = short_names(self.point)
        return " ".join(f"{names[key]}={value}" for key, value in self.labels.items())

    @property
    def results(self) -> dict[str, float]:
        """The values of finished jobs by repetition; a repetition counts once."""
        values: dict[str, float] = {}
        for job in self.jobs:
            if job.value is not None:
                values.setdefault(job.repetition, job.value)
        return values


def group_configurations(sweep: Sweep) -> list[Configuration]:
    """The configurations with a result, in the order of their first jobs."""
    keys = sweep.swept
    groups = dict[tuple[_Value, ...], list[SweepJob]]()
    for job in sweep.jobs:
        groups.setdefault(tuple(_value(job.overrides.get(key, "")) for key in keys), []).append(job)
    configurations = []
    for values, jobs in groups.items():
        point = {key: _text(value) for key, value in zip(keys, values, strict=True)}
        configurations.append(Configuration(point, tuple(jobs)))
    return [each for each in configurations if each.results]


def _value(text: str) -> _Value:
    """Numbers by their value: `1e-3` and `0.001` are one."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        return value if math.isfinite(value) else text
    return text


def _text(value: _Value) -> str:
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def overrides_by_key(texts: Sequence[str]) -> dict[str, str]:
    """Overrides by key; those without a value, such as `~callbacks.x`, have an empty one."""
    return {key.lstrip("+"): value for key, _, value in (text.partition("=") for text in texts)}


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Keys without their paths, if their last parts tell them apart."""
    last = {key: key.rpartition(".")[2] for key in keys}
    if len(set(last.values())) < len(last):
        return {key: key for key in last}
    return last
