"""The jobs of a sweep folder with their results, and its configurations: jobs that differ only in seed or fold."""

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

from mlxlab.analysis.comparison_runs import check_metric
from mlxlab.analysis.sweeps import sweep_start
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.record.attempts import JobRecord, read_jobs
from mlxlab.record.run_file import read_run
from mlxlab.record.run_record import Metrics
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
        keys = dict.fromkeys(chain.from_iterable(job.overrides for job in self.jobs))
        return [key for key in keys if key not in REPETITIONS and self._varies(key)]

    @property
    def fixed(self) -> list[str]:
        """Overrides that all jobs share."""
        varied = (*self.swept, *REPETITIONS)
        fixed = []
        for job in self.jobs[:1]:
            fixed += [f"{key}={text}" for key, text in job.overrides.items() if key not in varied]
        return fixed

    @property
    def repetition(self) -> str:
        """What a result of a configuration is: a seed, a fold, or a run."""
        varied = [name for key, name in REPETITIONS.items() if self._varies(key)]
        if len(varied) > 1:
            return "run"
        return "".join(varied) or "seed"

    @property
    def test_ratio(self) -> float:
        """Test rows / training rows of a fold."""
        return shared_rows_of(self.folds)

    def count(self, state: State) -> int:
        return sum(job.state == state for job in self.jobs)

    def _varies(self, key: str) -> bool:
        return len({job.overrides.get(key) for job in self.jobs}) > 1


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
        floats = {key: f"{each:.6g}" for key, each in values.items() if isinstance(each, float)}
        return self.point | floats

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
        if math.isfinite(value):
            return value
    return text


def _text(value: _Value) -> str:
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Keys without their paths, if their last parts tell them apart."""
    last = {key: key.rpartition(".")[2] for key in keys}
    if len(set(last.values())) < len(last):
        return {key: key for key in last}
    return last


def read_sweep(folder: Path, metric: str | None = None) -> Sweep:
    """The sweep in a folder.

    Args:
        metric: of the best evaluation of each run; None takes the objective of the sweep.

    Raises:
        InputNotFoundError: the folder holds no sweep.
        DataError: a record is damaged, or no run has a finite value of the metric.
        ConfigError: the runs have other metrics.
    """
    objective, records = _read_records(folder)
    by_number = sorted(records.items(), key=lambda item: item[1].job.number)
    jobs = [_job(record, objective, path) for path, record in by_number]
    if metric is not None and metric != objective:
        objective = metric
        metrics = [_metrics(job) for job in jobs]
        check_metric(metric, set[str]().union(*metrics), str(folder))
        values = [each.get(metric) for each in metrics]
        jobs = [replace(job, value=value) for job, value in zip(jobs, values, strict=True)]
        if all(job.value is None for job in jobs):
            raise DataError(f"{folder}: no run has a finite {metric}")
    return Sweep(folder.name, objective, tuple(jobs), _num_folds(jobs))


def _read_records(folder: Path) -> tuple[str, dict[Path, JobRecord]]:
    """(objective, jobs that were asked for and those that were begun, by their folders)."""
    records = read_jobs(folder)
    begun = {record.job.number for record in records.values()}
    objective = next((record.objective for record in records.values()), "")
    with suppress(InputNotFoundError):  # Only our own sweepers leave it.
        start = sweep_start.read_sweep_start(folder)
        objective = start["shared"].get("objective", objective)
        for number in range(len(start["jobs"])):
            if number not in begun:
                records[folder / str(number)] = sweep_start.unstarted(start, number)
    if not records:
        raise InputNotFoundError(f"{folder}: expected the folder of a sweep")
    return objective, records


def _job(record: JobRecord, objective: str, folder: Path) -> SweepJob:
    state: State = "unfinished"
    if record.state in get_args(State):
        state = cast(State, record.state)
    value = None
    reason = record.reason
    if state == "finished":
        value = record.value
    elif record.value is not None:
        reason = f"{objective} {record.value:.4g}; {reason}"
    overrides = {}
    for override in record.job.overrides:
        key, _, text = override.partition("=")  # `~callbacks.x` has no value.
        overrides[key.lstrip("+")] = text
    return SweepJob(
        record.job.number, overrides, state, value, reason, record.seconds, folder=folder
    )


def _metrics(job: SweepJob) -> Metrics:
    """The metrics of the best evaluation of a run; empty if it has none or has not finished."""
    if job.state == "finished":
        with suppress(InputNotFoundError, DataError):
            return read_run(job.folder).evaluation.keyed_metrics("valid")
    return {}


def _num_folds(jobs: list[SweepJob]) -> int | None:
    """The number of folds of the cross-validation that the runs are of."""
    for job in [job for job in jobs if job.value is not None][:1]:
        with suppress(InputNotFoundError, DataError):
            return read_run(job.folder).data.folds
    return None
