"""A job of a sweep, and `job.json` in its folder: what came of it, as the process that runs it writes it.

So it does not matter which launcher started the job, or whether the sweep has been killed since.
"""

import fcntl
import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mlxlab.checkpoint.names import FOLDER, ROUNDS, committed_paths
from mlxlab.config.hydra.job import compose_job, job_folder
from mlxlab.config.issues import one_line
from mlxlab.config.resume_overrides import override_name
from mlxlab.constraints import Count, Ge, Le, NonNegative, Size
from mlxlab.errors import (
    CannotCreateError,
    DataError,
    InputNotFoundError,
    RunInterrupted,
    UserError,
)
from mlxlab.experiment.manifest import read_manifest
from mlxlab.experiment.sweep_start import Texts
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.redact import redact
from mlxlab.training.stop_rule import stop_rule

FILE = "job.json"
LOCK = "job.lock"
MAX_JOBS = 100_000
_BUG = 70
_CTRL_C = 130
_MAX_BYTES = 2**20
_REASON_LENGTH = 300
_PATIENCE = 5.0
_POLL_SECONDS = 0.05

State = Literal["waiting", "running", "finished", "failed", "stopped", "skipped"]
ENDED = ("finished", "failed", "skipped")
Number: TypeAlias = Annotated[int, Ge(0), Le(MAX_JOBS - 1)]

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class JobRecord:
    """What is known of a job.

    Args:
        overrides: of the run, without those that only say how it starts.
        state: waiting (not started), running (also of a process that was killed), finished, failed, stopped (by a
            signal; it resumes from its checkpoint) or skipped (another job has the same config).
        config: hash of its resolved config, without what depends on its folder.
        reason: why it failed, was stopped or skipped, in one line.
        exit_code: of its last process, 128 + number for a signal; null if it has not ended.
        attempts: how often a process began it.
        seconds: of all attempts.
        objective: whose value it is.
        value: null unless it finished.
        budget: at which a search pauses it; null at the end of its run.
    """

    number: Number
    overrides: Texts
    state: State = "waiting"
    config: str = ""
    reason: str = ""
    exit_code: int | None = None
    attempts: Count = 0
    seconds: NonNegative = 0.0
    objective: str = ""
    value: float | None = None
    budget: Size | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing is left to run."""
        return self.state in ENDED


def compose(
    hydra: HydraContext, sweep: DictConfig, overrides: list[str], number: int, resume: bool = False
) -> Job:
    """Composes a job of a sweep.

    Args:
        resume: it was started before, and continues from the latest checkpoint if there is one.

    Raises:
        ConfigError: its folder is not inside that of the sweep.
    """
    config = compose_job(hydra.config_loader, sweep, overrides, number)
    job = Job(number, overrides, config, job_folder(config))
    if not resume:
        return job
    others = [text for text in overrides if override_name(text) != "resume"]
    has_checkpoint = committed_paths(job.folder / FOLDER) or (job.folder / ROUNDS).is_file()
    if len(others) < len(overrides) and not has_checkpoint:
        return job  # It still starts from the run that its own `resume` names.
    return compose(hydra, sweep, [*others, "resume=auto"], number)


def read_record(folder: Path) -> JobRecord | None:
    """The record of a job; None if there is none. Raises DataError if it is damaged."""
    with suppress(InputNotFoundError):
        return read_json(folder / FILE, JobRecord, max_bytes=_MAX_BYTES)
    return None


def write_record(folder: Path, record: JobRecord) -> None:
    """Replaces the record. A full disk does not end a sweep: the job then runs again next time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / FILE, asdict(record), durable=True)
    except OSError as error:
        logger.warning(f"{folder / FILE}: {error.strerror}")


def read_records(sweep: Path) -> dict[Path, JobRecord]:
    """The records in the folder of a sweep, by job folder. Raises DataError if one is damaged."""
    records = {}
    for path, folders, files in os.walk(sweep):
        folder = Path(path)
        if FILE in files:
            folders.clear()
            record = read_record(folder)
            if record is not None:
                records[folder] = record
    return records


def seconds_of_attempts(folder: Path) -> float:
    """The seconds of all processes that worked on a run, by its manifest; 0 without one."""
    with suppress(InputNotFoundError, DataError):
        attempts = read_manifest(folder)["attempts"]
        return sum(max(each.get("end", each["start"]) - each["start"], 0.0) for each in attempts)
    return 0.0


@contextmanager
def hold_lock(path: Path, busy: str, patience: float = 0.0) -> Iterator[None]:
    """Holds a lock; CannotCreateError with `busy` if another process still does after `patience` seconds."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise CannotCreateError(f"{path}: {error.strerror}") from None
    try:
        until = time.monotonic() + patience
        while not _takes(file):
            if time.monotonic() > until:
                raise CannotCreateError(busy)
            time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(file)


def _takes(file: int) -> bool:
    """Whether a lock is free, and then held."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class JobTask:
    """The task of the app, which also records what came of it in the folder of the job."""

    def __init__(self, task: TaskFunction) -> None:
        self.task = task

    def __call__(self, config: DictConfig) -> float:
        folder = Path(HydraConfig.get().runtime.output_dir)
        # The process of a sweep that was killed may still be ending.
        busy = f"{folder}: another process runs this job"
        with hold_lock(folder / LOCK, busy, _PATIENCE):
            return self._run(config, folder)

    def _run(self, config: DictConfig, folder: Path) -> float:
        record = _begin(folder, str(config.objective))
        start = time.monotonic()
        try:
            value = float(self.task(config))
        except BaseException as error:
            outcome = _outcome_of(error)
            raise
        else:
            outcome = _outcome_of_value(value, record.objective)
            return value
        finally:
            seconds = record.seconds + time.monotonic() - start
            seconds = round(max(seconds, seconds_of_attempts(folder)), 3)
            write_record(folder, replace(record, seconds=seconds, **outcome))


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


def _outcome_of_value(value: float, objective: str) -> dict[str, Any]:
    if math.isfinite(value):
        return {"state": "finished", "value": value, "exit_code": 0}
    return {"state": "failed", "reason": f"{objective} is {value}", "exit_code": 1}


def _outcome_of(error: BaseException) -> dict[str, Any]:
    """Why a job has no value."""
    if isinstance(error, RunInterrupted):
        return _failure("stopped", str(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return _failure("stopped", "interrupted", _CTRL_C)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        return _failure("failed", f"exited with code {code} before its end", code or 1)
    if isinstance(error, UserError):
        return _failure("failed", str(error), error.exit_code)
    return _failure("failed", f"{type(error).__name__}: {error}", _BUG)


def _failure(state: State, reason: str, exit_code: int) -> dict[str, Any]:
    return {
        "state": state,
        "reason": redact(one_line(reason, _REASON_LENGTH)),
        "exit_code": exit_code,
    }
