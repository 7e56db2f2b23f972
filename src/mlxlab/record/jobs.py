"""The jobs of a sweep: what came of each, by the record of its run.

So it does not matter which launcher started a job, or whether the sweep has been killed since.
"""

import logging
import math
import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from mlxlab.errors import DataError, InputNotFoundError, UserError, WriteError
from mlxlab.record.attempts import end_attempt, is_of_this_process, new_attempt, read_now
from mlxlab.record.run_file import FILE, SWEEP, read_or_begin, read_run, write_run
from mlxlab.record.run_record import Attempt, JobIdentity, RunRecord, Status
from mlxlab.terminal.redact import redact
from mlxlab.terminal.wording import one_line

State = Literal["waiting", "running", "finished", "paused", "failed", "stopped"]
_STATES: dict[Status, State] = {
    "running": "running",
    "killed": "running",
    "interrupted": "stopped",
    "finished": "finished",
    "paused": "paused",
    "failed": "failed",
}
_REASON_LENGTH = 300

logger = logging.getLogger(__name__)


class Ending(NamedTuple):
    """How a process ended that could not record it."""

    status: Status
    error: str
    exit_code: int


@dataclass(frozen=True)
class JobRecord:
    """What is known of a job.

    Args:
        state: waiting (not started), running (also of a process that was killed), finished, paused (at a rung of a
            search), failed, or stopped (by a signal; it resumes from its checkpoint).
        reason: why it did not finish, in one line.
        exit_code: of its last process, 128 + number for a signal; null if it has not ended.
        pid: of its last process.
        seconds: of all attempts.
        value: of the objective, null unless it finished or was paused.
    """

    job: JobIdentity
    state: State = "waiting"
    reason: str = ""
    exit_code: int | None = None
    pid: int = 0
    attempts: int = 0
    seconds: float = 0.0
    objective: str = ""
    value: float | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing is left to run."""
        return self.state not in ("waiting", "running", "stopped")


def read_job(folder: Path) -> JobRecord | None:
    """What is known of the job in a folder; None if no process began it. Raises DataError if its record is damaged."""
    with suppress(InputNotFoundError):
        record = read_now(folder)
        if record.job is not None:
            return _job_record(record, record.job)
    return None


def read_jobs(sweep: Path) -> dict[Path, JobRecord]:
    """The jobs in the folder of a sweep, by job folder, without those whose record is damaged."""
    jobs = {}
    for path, folders, files in os.walk(sweep):
        folder = Path(path)
        if SWEEP in files and folder != sweep:
            folders.clear()  # It holds a sweep of its own.
        elif FILE in files:
            folders.clear()
            try:
                job = read_job(folder)
            except DataError as error:
                logger.warning(f"{error}; the job counts as not begun")
                continue
            if job is not None:
                jobs[folder] = job
    return jobs


def _job_record(record: RunRecord, job: JobIdentity) -> JobRecord:
    last = record.attempts[-1]
    state = _STATES[last.status]
    return JobRecord(
        job,
        state,
        redact(one_line(last.error, _REASON_LENGTH)),
        last.exit_code,
        last.pid,
        len(record.attempts),
        round(sum(each.seconds for each in record.attempts), 3),
        record.training.objective,
        record.training.best if state in ("finished", "paused") else None,
    )


def begin_job(folder: Path, job: JobIdentity, objective: str) -> None:
    """Records that this process runs a job: `RunWriter` continues its attempt.

    Raises:
        WriteError: the disk cannot be written.
    """
    record = read_or_begin(folder)
    before = record.job
    if before is not None and _same(before) == _same(job):
        job = replace(before, budget=job.budget)  # It began without `resume=auto`.
    record.job = job
    record.training.objective = objective
    record.attempts.append(new_attempt())
    record.status = "running"
    write_run(folder, record)


def end_job(folder: Path, error: BaseException | None, value: float | None = None) -> None:
    """Records how a job ended whose run has not recorded it; a value that is not finite is none."""
    record = read_run(folder)
    last = record.attempts[-1]
    if value is not None and not math.isfinite(value):
        error = UserError(f"{record.training.objective} is {value}")
        error.exit_code = 1
    elif not is_of_this_process(last):
        return
    end_attempt(last, error)
    record.status = last.status
    record.training.best = value
    _write(folder, record)


def record_crash(folder: Path, job: JobIdentity, pid: int, seconds: float, ending: Ending) -> None:
    """Records how a process ended that could not, after some seconds."""
    record = read_or_begin(folder)
    record.job = record.job or job
    start = time.time() - seconds
    if not record.attempts or record.attempts[-1].pid != pid:
        record.attempts.append(Attempt(platform.node(), pid, start, start, trained=False))
    last = record.attempts[-1]
    last.status = record.status = ending.status
    last.error = ending.error
    last.exit_code = ending.exit_code
    last.end = time.time()
    _write(folder, record)


def _write(folder: Path, record: RunRecord) -> None:
    """A full disk does not end a sweep: the job then runs again next time."""
    try:
        write_run(folder, record)
    except WriteError as error:
        logger.warning(str(error))


def _same(job: JobIdentity) -> tuple[int, list[str]]:
    return job.number, [text for text in job.overrides if not text.startswith("resume=")]
