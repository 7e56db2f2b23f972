"""A job of a sweep: how it is composed, and the task that also records what came of it."""

import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mlxlab.checkpoint.names import FOLDER, ROUNDS, committed_paths
from mlxlab.config.hydra.job import job_folder, set_number
from mlxlab.dotted_keys import override_name
from mlxlab.errors import CannotCreateError, RunInterrupted, UserError
from mlxlab.experiment.job_record import (
    JobRecord,
    State,
    read_record,
    seconds_of_attempts,
    write_record,
)
from mlxlab.files.lock import lock
from mlxlab.record.run_file import read_run
from mlxlab.redact import redact
from mlxlab.sweep.derive import derive
from mlxlab.training.stop_rule import stop_rule
from mlxlab.wording import one_line

LOCK = "job.lock"
_BUG = 70
_CTRL_C = 130
_REASON_LENGTH = 300
_PATIENCE = 5.0
_POLL_SECONDS = 0.05

Outcome = dict[str, Any]  # fields of a record


@dataclass(frozen=True)
class Job:
    """A job that can be started.

    Args:
        number: in its sweep.
        overrides: as it was composed.
    """

    number: int
    overrides: list[str]
    config: DictConfig
    folder: Path


def compose(
    hydra: HydraContext,
    sweep: DictConfig,
    overrides: list[str],
    number: int,
    base: DictConfig | None = None,
) -> Job:
    """Composes a job of a sweep; one that was started before continues from its latest checkpoint.

    Args:
        base: another job of the sweep, which may save the time of Hydra.

    Raises:
        ConfigError: its folder is not inside that of the sweep.
        DataError: its record is damaged.
    """
    config = derive(base, overrides)
    if config is None:
        config = hydra.config_loader.load_sweep_config(sweep, overrides)
    job = _numbered(config, overrides, number)
    record = read_record(job.folder)
    if record is None or record.attempts == 0:
        return job
    others = [text for text in overrides if override_name(text) != "resume"]
    has_checkpoint = committed_paths(job.folder / FOLDER) or (job.folder / ROUNDS).is_file()
    if len(others) < len(overrides) and not has_checkpoint:
        return job  # It still starts from the run that its own `resume` names.
    overrides = [*others, "resume=auto"]
    config = hydra.config_loader.load_sweep_config(sweep, overrides)
    return _numbered(config, overrides, number)


def _numbered(config: DictConfig, overrides: list[str], number: int) -> Job:
    set_number(config, number)
    return Job(number, overrides, config, job_folder(config))


def record_waiting(job: Job, overrides: list[str]) -> JobRecord:
    """Records that a job is going to start: its earlier attempts count, what came of them does not.

    Args:
        overrides: that make it the job it is.
    """
    before = record_of(job)
    record = JobRecord(job.number, overrides, attempts=before.attempts, seconds=before.seconds)
    write_record(job.folder, record)
    return record


def record_end(folder: Path, record: JobRecord, seconds: float, outcome: Outcome) -> JobRecord:
    """Records what came of a job after an attempt of some seconds."""
    seconds = max(record.seconds + seconds, seconds_of_attempts(folder))
    ended = replace(record, seconds=round(seconds, 3), **outcome)
    write_record(folder, ended)
    return ended


def record_of(job: Job) -> JobRecord:
    """What is known of a job."""
    return read_record(job.folder) or JobRecord(job.number, job.overrides)


@contextmanager
def hold_lock(path: Path, busy: str, patience: float = 0.0) -> Iterator[None]:
    """Holds a lock; CannotCreateError with `busy` if another process still does after `patience` seconds."""
    until = time.monotonic() + patience
    with ExitStack() as stack:
        try:
            while not stack.enter_context(lock(path)):
                if time.monotonic() > until:
                    raise CannotCreateError(busy)
                time.sleep(_POLL_SECONDS)
        except OSError as error:
            raise CannotCreateError(f"{path}: {error.strerror}") from None
        yield


class JobTask:
    """The task of the app, which also records what came of it in the folder of the job."""

    def __init__(self, task: TaskFunction) -> None:
        self.task = task

    def __call__(self, config: DictConfig) -> float:
        folder = Path(HydraConfig.get().runtime.output_dir)
        # The process of a sweep that was killed may still be ending.
        busy = f"{folder}: another process runs this job"
        with hold_lock(folder / LOCK, busy, _PATIENCE):
            record = _begin(folder, str(config.objective))
            start = time.monotonic()
            try:
                value = float(self.task(config))
                outcome = _outcome_of_value(value, record.objective, folder)
                return value
            except BaseException as error:
                outcome = _outcome_of(error)
                raise
            finally:
                record_end(folder, record, time.monotonic() - start, outcome)


def _begin(folder: Path, objective: str) -> JobRecord:
    """Records that this process runs the job; sweepers of Hydra and plugins have left no record."""
    hydra = HydraConfig.get()
    record = read_record(folder)
    if record is None:
        record = JobRecord(int(hydra.job.num), list(hydra.overrides.task))
    rule = stop_rule()
    record = replace(
        record,
        state="running",
        objective=objective,
        attempts=record.attempts + 1,
        budget=rule["pause_at"] if rule else None,
    )
    write_record(folder, record)
    return record


def _outcome_of_value(value: float, objective: str, folder: Path) -> Outcome:
    if not math.isfinite(value):
        return failure("failed", f"{objective} is {value}", 1)
    outcome = {"state": "finished", "reason": "", "value": value, "exit_code": 0}
    if stop_rule() is not None:
        run = read_run(folder)
        outcome["state"] = run.status
        outcome["reason"] = run.attempts[-1].error
    return outcome


def _outcome_of(error: BaseException) -> Outcome:
    """Why a job has no value."""
    if isinstance(error, RunInterrupted):
        return failure("stopped", str(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return failure("stopped", "interrupted", _CTRL_C)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        return failure("failed", f"exited with code {code} before its end", code or 1)
    if isinstance(error, UserError):
        return failure("failed", str(error), error.exit_code)
    return failure("failed", f"{type(error).__name__}: {error}", _BUG)


def failure(state: State, reason: str, exit_code: int) -> Outcome:
    """Why a job has no value, redacted and in one line."""
    return {
        "state": state,
        "reason": redact(one_line(reason, _REASON_LENGTH)),
        "exit_code": exit_code,
    }
