"""The attempts of a run: the processes that worked on it, as its manifest records them."""

import platform
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict

import psutil

from mlxlab.constraints import Ge, Le

Status = Literal["RUNNING", "DONE", "FAILED", "PREEMPTED", "DEAD"]
_BY_OTHERS = ("report.html", "verify.json")  # may be written by other commands later


class Attempt(TypedDict):
    """One process that worked on the run.

    `status` is DEAD for one that could not record its end: killed, or ended at once by a second Ctrl-C. `trained` is
    false for one that has not begun to train: its command was refused or stopped before, or nothing was left to train.
    """

    host: str
    pid: Annotated[int, Ge(1), Le(2**31 - 1)]
    process_start: float
    start: float
    status: Status
    trained: NotRequired[bool]
    end: NotRequired[float]
    exit_code: NotRequired[int]
    error: NotRequired[str]
    warnings: NotRequired[list[str]]


def is_dead(attempt: Attempt) -> bool:
    """Whether its process is known to be gone: on another machine nobody can tell."""
    if attempt["host"] != platform.node():
        return False
    with suppress(psutil.NoSuchProcess):
        return abs(psutil.Process(attempt["pid"]).create_time() - attempt["process_start"]) >= 2.0
    return True


def ended_attempts(
    attempts: Sequence[Attempt], folder: Path, before: float | None = None
) -> list[Attempt]:
    """The same, where those that did not record their end are DEAD since the last change in the folder.

    Args:
        before: when the process of the next one began; None is now.
    """
    last = time.time() if before is None else before
    limits = [
        *(each["process_start"] for each in attempts[1:]),
        last,
    ]  # one too many if there are none
    ended = []
    for each, limit in zip(attempts, limits, strict=False):
        if each["status"] == "RUNNING":
            end = each["end"] if "end" in each else last_change(folder, each["start"], limit)
            each = {**each, "status": "DEAD", "end": end}
        ended.append(each)
    return ended


def trained_attempts(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Those that began to train; all of them if none did."""
    return [each for each in attempts if each.get("trained", True)] or [*attempts]


def status_to_keep(
    status: Status, ended: Sequence[Attempt], keys: Collection[str]
) -> Status | None:
    """The status of the run, to which an attempt that is refused returns; None if there is none.

    Args:
        ended: the attempts before.
        keys: of the manifest: `inputs` are there once an attempt begins, `outcome` again only when it has ended.
    """
    if status != "RUNNING":
        return status
    if "outcome" not in keys:
        return "DEAD" if "inputs" in keys else None
    deciding = [each for each in ended if each.get("trained", True) or each["status"] == "DONE"]
    return deciding[-1]["status"] if deciding else None


def deciding_attempt(attempts: Sequence[Attempt], status: str) -> Attempt:
    """The last attempt that gave the run its status: one that was refused leaves that of the one before."""
    ended = [each for each in trained_attempts(attempts) if each["status"] == status]
    ended = ended or [each for each in attempts if each["status"] == status]
    return ended[-1] if ended else attempts[-1]


def last_change(folder: Path, start: float, before: float) -> float:
    """The time of the last change since the attempt began at `start`; the process of the next one began at `before`."""
    times = [start]
    with suppress(OSError):
        times += [path.stat().st_mtime for path in folder.iterdir() if path.name not in _BY_OTHERS]
    return max(time for time in times if time <= max(before, start))


def seconds_of(attempts: Sequence[Attempt]) -> float:
    """The seconds of those that have ended and began to train."""
    return sum(each["end"] - each["start"] for each in trained_attempts(attempts) if "end" in each)
