"""`job.json` in the folder of a job of a sweep: what came of it, as the process that runs it writes it.

So it does not matter which launcher started the job, or whether the sweep has been killed since.
"""

import logging
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from mlxlab.constraints import Count, Ge, Le, NonNegative, Size
from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.experiment.sweep_start import FILE as SWEEP
from mlxlab.experiment.sweep_start import Texts
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.record.run_file import read_run

FILE = "job.json"
MAX_JOBS = 100_000
_MAX_BYTES = 2**20

State = Literal["waiting", "running", "finished", "paused", "failed", "stopped", "skipped"]
Number: TypeAlias = Annotated[int, Ge(0), Le(MAX_JOBS - 1)]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobRecord:
    """What is known of a job.

    Args:
        overrides: of the run, without those that only say how it starts.
        state: waiting (not started), running (also of a process that was killed), finished, paused (at a rung of a
            search), failed, stopped (by a signal; it resumes from its checkpoint) or skipped (another job has the same
            config).
        config: hash of its resolved config, without what depends on its folder.
        reason: why it did not finish, in one line.
        exit_code: of its last process, 128 + number for a signal; null if it has not ended.
        attempts: how often a process began it.
        seconds: of all attempts.
        objective: whose value it is.
        value: null unless it finished or was paused.
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
        return self.state not in ("waiting", "running", "stopped")


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
        if SWEEP in files and folder != sweep:
            folders.clear()  # It holds a sweep of its own.
        elif FILE in files:
            folders.clear()
            record = read_record(folder)
            if record is not None:
                records[folder] = record
    return records


def seconds_of_attempts(folder: Path) -> float:
    """The seconds of all processes that worked on a run, by its record; 0 without one."""
    with suppress(InputNotFoundError, DataError):
        return sum(each.seconds for each in read_run(folder).attempts)
    return 0.0
