"""The attempts of a run: the processes that worked on it, and how they ended."""

import os
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from mlxlab.errors import RunInterrupted, RunPruned, UserError
from mlxlab.record.run_file import read_run
from mlxlab.record.run_record import Attempt, RunRecord, Status

CTRL_C = 130
BUG = 70
_BY_OTHERS = ("report.html", "verify.json")  # Other commands may write them later.
_MAX_ERROR = 2000  # characters


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
