"""Reads the jobs of a sweep from its folder: from the study of a search, else the journal, else the run folders."""

import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from mlxlab.analysis.comparison_runs import check_metric
from mlxlab.analysis.sweeps.sweep_jobs import State, Sweep, SweepJob, overrides_by_key
from mlxlab.checkpoint.listing import list_checkpoints, newest_state
from mlxlab.config.hydra.search_space import override_texts
from mlxlab.config.issues import one_line
from mlxlab.errors import DataError, InputNotFoundError, UserError
from mlxlab.experiment import manifest
from mlxlab.experiment.run_metrics import FILE as METRICS
from mlxlab.experiment.run_metrics import Metrics, RunMetrics
from mlxlab.files.untrusted import read_json
from mlxlab.metric_names import VALID_LOSS
from mlxlab.redact import redact
from mlxlab.sweep import job_journal
from mlxlab.sweep.job_seconds import seconds_of_attempts
from mlxlab.sweep.search import study

MAX_JOBS_WITH_CURVES, MAX_MANIFESTS = 100, 1000  # that are read

_Read: TypeAlias = tuple[
    tuple[str, ...], list[SweepJob], dict[int, Path]
]  # objectives, jobs, run folders by number


def read_sweep(folder: Path, metric: str | None = None) -> Sweep:
    """The sweep in a folder.

    Args:
        metric: of the best evaluation of each run; None takes the objectives of the sweep.

    Raises:
        InputNotFoundError: the folder holds no sweep.
        DataError: its study or journal is damaged, or no run has a finite value of the metric.
        ConfigError: the runs have other metrics.
    """
    if (folder / study.FILE).exists():
        objectives, jobs, folders = _from_study(folder)
    elif (folder / job_journal.FILE).exists():
        objectives, jobs, folders = _from_journal(folder)
    else:
        objectives, jobs, folders = _from_runs(folder)
    if metric is not None and (metric,) != objectives:
        metrics = [_metrics(folders[job.number]) if job.state == "finished" else {} for job in jobs]
        check_metric(metric, {name for each in metrics for name in each}, str(folder))
        values = [
            {} if (value := each.get(metric)) is None else {metric: value} for each in metrics
        ]
        if not any(values):
            raise DataError(f"{folder}: no run has a finite {metric}")
        objectives, jobs = (
            (metric,),
            [replace(job, values=each) for job, each in zip(jobs, values, strict=True)],
        )
    for index, job in enumerate(jobs):
        if job.same_as is None:
            run = folders[job.number]
            seconds = (
                max(job.seconds, seconds_of_attempts(run)) if index < MAX_MANIFESTS else job.seconds
            )
            curve = _curve(run, objectives[0]) if index < MAX_JOBS_WITH_CURVES else ()
            jobs[index] = replace(job, seconds=seconds, curve=curve)
    num_folds = _num_folds([folders[job.number] for job in jobs if job.values])
    return Sweep(folder.name, objectives, tuple(jobs), num_folds, folders)


def _from_study(folder: Path) -> _Read:
    settings, trials = study.read_study(folder / study.FILE)
    objectives, jobs = settings["objectives"], []
    for trial in trials:
        overrides = overrides_by_key([*settings["overrides"], *override_texts(trial.point)])
        values = dict(zip(objectives, trial.values, strict=False))
        reason = trial.reason
        if values and trial.state != "finished":
            reached = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            values, reason = {}, f"{reached} at step {trial.step}; {reason}".removesuffix("; ")
        state: State = (
            "unfinished" if trial.state == "running" or trial.state == "stopped" else trial.state
        )
        jobs.append(
            SweepJob(trial.number, overrides, state, values, reason, trial.seconds, trial.same_as)
        )
    return tuple(objectives), jobs, {job.number: folder / str(job.number) for job in jobs}


def _from_journal(folder: Path) -> _Read:
    start, records = job_journal.read_job_journal(folder)
    jobs, folders = [], {}
    for record in records:
        state: State = (
            record.state if record.state in ("finished", "failed", "skipped") else "unfinished"
        )
        values = (
            {}
            if record.value is None or state != "finished"
            else {start["objective"]: record.value}
        )
        overrides = overrides_by_key(record.overrides)
        jobs.append(
            SweepJob(record.number, overrides, state, values, record.reason, record.seconds)
        )
        folders[record.number] = folder / record.folder
    return (start["objective"],), jobs, folders


def _from_runs(folder: Path) -> _Read:
    """For launchers that write no journal. What was typed for a run is in its manifest."""
    paths = sorted((file.parent for file in folder.glob(f"*/{manifest.FILE}")), key=_number)
    objective, jobs, folders = "", [], {}
    for index, path in enumerate(paths):
        try:
            fields, status = manifest.read_manifest(path), manifest.effective_status(path)
        except (InputNotFoundError, DataError) as error:
            jobs.append(SweepJob(index, {}, "failed", reason=str(error)))
            folders[index] = path
            continue
        inputs, outcome = fields.get("inputs", {}), fields.get("outcome", {})
        objective = objective or outcome.get("objective", "")
        overrides = overrides_by_key(inputs.get("overrides", []))
        best, last = outcome.get("best"), fields["attempts"][-1]
        state: State = "failed" if status in ("DONE", "FAILED") else "unfinished"
        if status == "DONE" and best is not None and math.isfinite(best):
            state = "finished"
        values = (
            {outcome.get("objective", ""): best} if best is not None and state == "finished" else {}
        )
        reason = (
            "" if state == "finished" else redact(one_line(last.get("error", status.lower()), 300))
        )
        jobs.append(
            SweepJob(index, overrides, state, values, reason, outcome.get("wall_seconds", 0.0))
        )
        folders[index] = path
    if not jobs:
        raise InputNotFoundError(f"{folder}: expected the folder of a sweep")
    return (objective or VALID_LOSS,), jobs, folders


def _number(folder: Path) -> tuple[int, str]:
    return (int(folder.name) if folder.name.isdecimal() else 10**9, folder.name)


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
            points = (
                (step, metrics.get(objective, math.nan)) for step, metrics in state["history"].curve
            )
            return tuple((step, value) for step, value in points if math.isfinite(value))
    return ()


def _num_folds(folders: list[Path]) -> int | None:
    """Of a cross-validation that the runs are folds of."""
    for folder in folders[:1]:
        with suppress(InputNotFoundError, DataError):
            return manifest.read_manifest(folder).get("inputs", {}).get("folds")
    return None
