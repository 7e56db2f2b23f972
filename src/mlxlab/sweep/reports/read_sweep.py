"""Reads the jobs of a sweep from its folder."""

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from mlxlab.analysis.comparison_runs import check_metric
from mlxlab.analysis.sweeps.sweep_jobs import State, Sweep, SweepJob, overrides_by_key
from mlxlab.checkpoint.listing import list_checkpoints, newest_state
from mlxlab.errors import DataError, InputNotFoundError, UserError
from mlxlab.experiment import manifest, sweep_start
from mlxlab.experiment.run_metrics import FILE as METRICS
from mlxlab.experiment.run_metrics import Metrics, RunMetrics
from mlxlab.files.untrusted import read_json
from mlxlab.metric_names import VALID_LOSS
from mlxlab.sweep.job import JobRecord, read_records, seconds_of_attempts

MAX_JOBS_WITH_CURVES = 100


class _Jobs(NamedTuple):
    """Objectives, jobs, and run folders by the number of the job."""

    objectives: tuple[str, ...]
    jobs: list[SweepJob]
    folders: dict[int, Path]


def read_sweep(folder: Path, metric: str | None = None) -> Sweep:
    """The sweep in a folder.

    Args:
        metric: of the best evaluation of each run; None takes the objectives of the sweep.

    Raises:
        InputNotFoundError: the folder holds no sweep.
        DataError: its study or a record is damaged, or no run has a finite value of the metric.
        ConfigError: the runs have other metrics.
    """
    found = _read_jobs(folder)
    if metric is not None and (metric,) != found.objectives:
        found = _with_metric(found, metric, folder)
    jobs = []
    for index, job in enumerate(found.jobs):
        run = found.folders[job.number]
        if job.same_as is None and index < MAX_JOBS_WITH_CURVES:
            job = replace(job, curve=_curve(run, found.objectives[0]))
        jobs.append(job)
    num_folds = _num_folds([found.folders[job.number] for job in jobs if job.values])
    return Sweep(folder.name, found.objectives, tuple(jobs), num_folds, found.folders)


def _with_metric(found: _Jobs, metric: str, folder: Path) -> _Jobs:
    """The jobs with another metric of their best evaluation."""
    metrics: list[Metrics] = []
    for job in found.jobs:
        is_finished = job.state == "finished"
        metrics.append(_metrics(found.folders[job.number]) if is_finished else {})
    check_metric(metric, {name for each in metrics for name in each}, str(folder))
    jobs = []
    for job, each in zip(found.jobs, metrics, strict=True):
        value = each.get(metric)
        jobs.append(replace(job, values={} if value is None else {metric: value}))
    if not any(job.values for job in jobs):
        raise DataError(f"{folder}: no run has a finite {metric}")
    return _Jobs((metric,), jobs, found.folders)


def _read_jobs(folder: Path) -> _Jobs:
    """The jobs that were asked for and those that were begun."""
    records: dict[int, JobRecord] = {}
    folders: dict[int, Path] = {}
    objective = VALID_LOSS
    with suppress(InputNotFoundError):  # Only our own sweepers leave it.
        start = sweep_start.read_sweep_start(folder)
        objective = start["objective"]
        records = {number: JobRecord(number, texts) for number, texts in enumerate(start["jobs"])}
        folders = {number: folder / str(number) for number in records}
    for path, record in read_records(folder).items():
        objective = record.objective or objective
        records[record.number] = record
        folders[record.number] = path
    if (folder / sweep_start.STUDY).exists():
        return _from_study(folder, records, folders)
    if not records:
        raise InputNotFoundError(f"{folder}: expected the folder of a sweep")
    jobs = [_job(records[number], objective, folders[number]) for number in sorted(records)]
    return _Jobs((objective,), jobs, folders)


def _job(record: JobRecord, objective: str, folder: Path) -> SweepJob:
    state: State = "unfinished"
    values = {}
    if record.state == "finished" and record.value is not None:
        state = "finished"
        values = {objective: record.value}
    elif record.state == "failed" or record.state == "skipped":
        state = record.state
    overrides = overrides_by_key(record.overrides)
    seconds = _seconds(record, folder)
    return SweepJob(record.number, overrides, state, values, record.reason, seconds)


def _from_study(folder: Path, records: dict[int, JobRecord], folders: dict[int, Path]) -> _Jobs:
    """The trials of a search."""
    from mlxlab.sweep.study import Study

    study = Study(folder / sweep_start.STUDY)
    objectives = study.question["objectives"]
    jobs = []
    for trial in study.trials():
        number = trial.number
        source = number if trial.same_as is None else trial.same_as
        record = records.get(source, JobRecord(number, []))
        folders.setdefault(number, folder / str(number))
        values = dict(zip(objectives, trial.values, strict=False))
        reason = trial.reason
        if values and trial.state != "finished":
            reached = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            reason = f"{reached} at step {trial.step}; {reason}".removesuffix("; ")
            values = {}
        state: State = "unfinished"
        if trial.state != "running" and trial.state != "stopped":
            state = trial.state
        seconds = _seconds(record, folders[number]) if trial.same_as is None else 0.0
        overrides = overrides_by_key(record.overrides)
        jobs.append(SweepJob(number, overrides, state, values, reason, seconds, trial.same_as))
    return _Jobs(tuple(objectives), jobs, folders)


def _seconds(record: JobRecord, folder: Path) -> float:
    """The seconds of a job; those of one that was killed are in its manifest alone."""
    return record.seconds if record.ended else max(record.seconds, seconds_of_attempts(folder))


def _metrics(folder: Path) -> Metrics:
    """Of the best evaluation of a run; empty if it has none."""
    with suppress(InputNotFoundError, DataError):
        return read_json(folder / METRICS, RunMetrics)["metrics"]
    return {}


def _curve(folder: Path, objective: str) -> tuple[tuple[int, float], ...]:
    """The objective at each evaluation, as the newest checkpoint has it."""
    with suppress(OSError, UserError):
        state = newest_state(list_checkpoints(folder / "checkpoints"))
        if state is not None:
            points = [
                (step, metrics.get(objective, math.nan)) for step, metrics in state["history"].curve
            ]
            return tuple((step, value) for step, value in points if math.isfinite(value))
    return ()


def _num_folds(folders: list[Path]) -> int | None:
    """Of a cross-validation that the runs are folds of."""
    for folder in folders[:1]:
        with suppress(InputNotFoundError, DataError):
            return manifest.read_manifest(folder).get("inputs", {}).get("folds")
    return None
