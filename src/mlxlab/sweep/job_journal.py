"""`sweep.jsonl`, the journal of a sweep: the command that started it, and every change of one of its jobs.

One JSON object per line; the last one of a job is what is known of it, that of a command what is continued. A line
survives `kill -9` once it is written.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, NotRequired, TypeAlias, TypedDict

from annotated_types import Ge, Le, Predicate

from mlxlab.constraints import NonNegative
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.experiment.sweep_start import FILE as FILE
from mlxlab.experiment.sweep_start import MAX_LINE, Texts
from mlxlab.experiment.sweep_start import SweepStart as SweepStart
from mlxlab.files.untrusted import open_regular, parse_json
from mlxlab.tracking.record_writer import RecordWriter

MAX_JOBS = 100_000
_MAX_BYTES = 2**30

State = Literal["waiting", "running", "finished", "failed", "stopped", "skipped"]


def is_inside(text: str) -> bool:
    """a path inside the sweep's folder"""
    path = PurePosixPath(text)
    return (
        text.isprintable()
        and not path.is_absolute()
        and ".." not in path.parts
        and bool(path.parts)
    )


Number: TypeAlias = Annotated[int, Ge(0), Le(MAX_JOBS - 1)]


@dataclass(frozen=True)
class Job:
    """A job of a sweep and what came of it.

    Args:
        overrides: of this job, as Hydra composes it.
        config: hash of its resolved config, without what depends on its folder; "" while it is unknown.
        state: waiting (not started), running (also one whose sweep was killed), finished, failed, stopped (by a
            signal; it resumes from its checkpoint) or skipped (another job has the same config).
        reason: why it failed, was stopped or skipped, in one line.
        exit_code: that of its process, 128 + number for a signal; null if it has not ended.
        attempts: how often its process was started.
        seconds: of all attempts that ended, and of those that were killed with the sweep.
        value: of the objective; null if there is none.
        folder: relative to that of the sweep.
    """

    number: Number
    overrides: Texts
    config: str
    state: State
    reason: str
    exit_code: int | None
    attempts: Annotated[int, Ge(0)]
    seconds: NonNegative
    value: float | None
    folder: Annotated[str, Predicate(is_inside)]


class _Line(TypedDict):
    t: Annotated[int, Ge(0)]  # ms since 1970
    sweep: NotRequired[SweepStart]
    job: NotRequired[Job]


class JobJournal:
    """Appends to the journal of a sweep; `jobs` by number as they stand."""

    def __init__(
        self, path: Path, writer: RecordWriter, start: SweepStart, jobs: dict[int, Job]
    ) -> None:
        self.path, self._writer, self.start, self.jobs = path, writer, start, jobs

    def record_start(self, start: SweepStart) -> None:
        """The command that continues the sweep, if it is another one."""
        if start != self.start:
            self.start = start
            self._write({"sweep": dict(start)})

    def record(self, *jobs: Job) -> None:
        """A full disk does not end the sweep: what it refuses is kept in memory and goes out before anything newer."""
        for job in jobs:
            self.jobs[job.number] = job
            self._write({"job": asdict(job)})

    def _write(self, record: dict[str, object]) -> None:
        self._writer.write({"t": time.time_ns() // 1_000_000, **record})


@contextmanager
def open_job_journal(folder: Path, start: SweepStart) -> Iterator[JobJournal]:
    """The journal of the sweep in a folder, new or continued; no other process can open it meanwhile.

    Raises:
        CannotCreateError: another process runs this sweep, or the folder cannot be written.
        DataError: the journal is damaged.
    """
    path = folder / FILE
    writer = RecordWriter(path)
    try:
        if path.stat().st_size:
            earlier, jobs = read_job_journal(folder)
            yield JobJournal(path, writer, earlier, {job.number: job for job in jobs})
        else:
            journal = JobJournal(path, writer, start, {})
            journal._write({"sweep": dict(start)})
            yield journal
    finally:
        writer.close()


def read_job_journal(folder: Path) -> tuple[SweepStart, list[Job]]:
    """(last command, one record per job by number) of the sweep in a folder. An incomplete last line does not count.

    Raises:
        InputNotFoundError: there is no journal.
        DataError: it is damaged, or not one of a sweep.
    """
    path = folder / FILE
    start: SweepStart | None = None
    jobs: dict[int, Job] = {}
    try:
        for number, text in enumerate(_lines(path), 1):
            line = parse_json(text, _Line, f"{path}:{number}")
            if len(line) != 2 or (number == 1 and "sweep" not in line):
                raise DataError(
                    f"{path}:{number}: expected {'the start of a sweep' if number == 1 else 'a job'}"
                )
            if "job" in line:
                jobs[line["job"].number] = line["job"]
            else:
                start = line["sweep"]
    except InputNotFoundError:
        raise InputNotFoundError(f"{path}: not found; expected the folder of a sweep") from None
    if start is None:
        raise DataError(f"{path}: empty; expected the start of a sweep")
    return start, [jobs[number] for number in sorted(jobs)]


def _lines(path: Path) -> Iterator[str]:
    size = 0
    with open_regular(path) as file:
        while line := file.readline(MAX_LINE):
            size += len(line)
            if not line.endswith(b"\n") and len(line) < MAX_LINE:
                return
            if size > _MAX_BYTES or not line.endswith(b"\n"):
                raise DataError(
                    f"{path}: a line of more than {MAX_LINE} bytes, or more than {_MAX_BYTES} in all"
                )
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError:
                raise DataError(f"{path}: not UTF-8") from None
