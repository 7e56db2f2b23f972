"""Reads the jobs of a sweep from its folder."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

from mlxlab.analysis.comparison_runs import check_metric
from mlxlab.analysis.sweeps import sweep_start
from mlxlab.analysis.sweeps.sweep_jobs import State, Sweep, SweepJob, overrides_by_key
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.record.attempts import JobRecord, read_jobs
from mlxlab.record.run_file import read_run
from mlxlab.record.run_record import Metrics


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
    jobs = []
    for path, record in sorted(records.items(), key=lambda item: item[1].job.number):
        jobs.append(_job(record, objective, path))
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
    job = record.job
    overrides = overrides_by_key(job.overrides)
    return SweepJob(job.number, overrides, state, value, reason, record.seconds, folder=folder)


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
