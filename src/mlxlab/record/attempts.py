"""The attempts of a run: the processes that worked on it, and how they ended; so too the jobs of a sweep.

What came of a job is in the record of its run, whichever launcher started it, and whether or not the sweep was killed.
"""

import logging
import math
import os
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

from mlxlab.errors import (
    DataError,
    InputNotFoundError,
    RunInterrupted,
    RunPruned,
    UserError,
    WriteError,
)
from mlxlab.record.run_file import FILE, SWEEP, read_or_begin, read_run, write_run
from mlxlab.record.run_record import Attempt, JobIdentity, RunRecord, Status
from mlxlab.terminal.redact import redact
from mlxlab.terminal.wording import one_line

CTRL_C = 130
BUG = 70
_BY_OTHERS = ("report.html", "verify.json")  # Other commands may write them later.
_MAX_ERROR = 2000  # characters
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


def new_attempt() -> Attempt:
    """An attempt of this process, which begins now."""
    process_start = psutil.Process().create_time()
    return Attempt(platform.node(), os.getpid(), process_start, time.time(), trained=False)


def is_of_this_process(attempt: Attempt) -> bool:
    """Whether this process began the attempt, and has recorded nothing else."""
    return attempt == replace(new_attempt(), start=attempt.start)


def end_attempt(attempt: Attempt, error: BaseException | None) -> None:
    """Records how an attempt ends: with this error, or well."""
    attempt.status = _status_of(error)
    attempt.end = attempt.end or time.time()
    attempt.exit_code = 0
    if isinstance(error, UserError):
        attempt.exit_code = error.exit_code
        attempt.error = str(error)
    elif isinstance(error, KeyboardInterrupt):
        attempt.exit_code = CTRL_C
        attempt.error = "Ctrl-C"
    elif isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        attempt.exit_code = code or 1
        attempt.error = f"exited with code {code} before its end"
    elif error is not None:
        attempt.exit_code = BUG
        attempt.error = f"{type(error).__name__}: {error}"
    attempt.error = attempt.error[:_MAX_ERROR]


def _status_of(error: BaseException | None) -> Status:
    if error is None:
        return "finished"
    if isinstance(error, RunPruned):
        return "paused"
    if isinstance(error, KeyboardInterrupt | RunInterrupted):
        return "interrupted"
    return "failed"


def read_now(folder: Path) -> RunRecord:
    """The record of a run folder, where a run without its process is killed.

    Raises:
        InputNotFoundError: there is none.
        DataError: it is damaged, or of another format.
    """
    record = read_run(folder)
    last = record.attempts[-1]
    ended = ended_attempts(record.attempts, folder)
    if is_dead(last):
        if record.status == "running":
            record.status = status_to_keep(record, ended) or "killed"
        record.attempts = ended
        record.training.seconds = seconds_of(ended)
    else:
        record.attempts = [*ended[:-1], last]
    return record


def is_dead(attempt: Attempt) -> bool:
    """Whether its process is known to be gone: on another machine nobody can tell."""
    if attempt.host != platform.node():
        return False
    with suppress(psutil.NoSuchProcess):
        return abs(psutil.Process(attempt.pid).create_time() - attempt.process_start) >= 2.0
    return True


def ended_attempts(
    attempts: Sequence[Attempt], folder: Path, before: float | None = None
) -> list[Attempt]:
    """Gives an end to attempts that recorded none: they were killed at the last change in the folder.

    Args:
        before: when the process of the next one began; None is now.
    """
    limits = [each.process_start for each in attempts[1:]]
    limits.append(time.time() if before is None else before)
    ended = []
    for each, limit in zip(attempts, limits, strict=False):
        if each.status == "running":
            end = each.end if each.end is not None else last_change(folder, each.start, limit)
            each = replace(each, status="killed", end=end)
        ended.append(each)
    return ended


def status_to_keep(record: RunRecord, ended: Sequence[Attempt]) -> Status | None:
    """The status of the run, to which an attempt that is refused returns; None if there is none.

    Args:
        ended: the attempts before.
    """
    if record.status != "running":
        return record.status
    if not record.has_begun:
        return None
    deciding = [each for each in ended if each.trained or each.status == "finished"]
    return deciding[-1].status if deciding else None


def last_change(folder: Path, start: float, before: float) -> float:
    """The time of the last change since the attempt began at `start`; the process of the next one began at `before`."""
    times = [start]
    with suppress(OSError):
        times += [path.stat().st_mtime for path in folder.iterdir() if path.name not in _BY_OTHERS]
    return max(time for time in times if time <= max(before, start))


def seconds_of(attempts: Sequence[Attempt]) -> float:
    """The seconds of those that began to train; of all of them if none did."""
    trained = [each for each in attempts if each.trained] or attempts
    return sum(each.seconds for each in trained)


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
    try:
        record = read_now(folder)
    except InputNotFoundError:
        return None
    if record.job is None:
        return None
    last = record.attempts[-1]
    state = _STATES[last.status]
    return JobRecord(
        record.job,
        state,
        redact(one_line(last.error, _REASON_LENGTH)),
        last.exit_code,
        last.pid,
        len(record.attempts),
        round(sum(each.seconds for each in record.attempts), 3),
        record.training.objective,
        record.training.best if state in ("finished", "paused") else None,
    )


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
