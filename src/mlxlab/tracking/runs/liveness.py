"""Whether a run that the store calls running still has its process: by the lock of its journal, else by its tags."""

import platform
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from mlxlab.errors import UserError
from mlxlab.tracking.record_writer import has_writer
from mlxlab.tracking.records import locate, read_uid
from mlxlab.tracking.runs.reader import RunRow

State = Literal["alive", "unsent", "dead", "unknown"]
START_TOLERANCE = 2.0  # seconds between the recorded and the actual start of a process


class Diagnosis(NamedTuple):
    """`unsent`: its process is dead, and its journal is in `folder`. `dead`: there is no journal either."""

    state: State
    reason: str
    folder: Path | None = None


def diagnose(run: RunRow) -> Diagnosis:
    """Examines a run with status RUNNING, complete with its tags."""
    with suppress(UserError, OSError, ValueError):  # gone, or cannot be opened: the tags decide
        if run.folder and run.uid:
            folder = Path(run.folder)
            journal, _ = locate(folder, run.uid)
            if read_uid(journal) == run.uid:
                if has_writer(journal):
                    return Diagnosis("alive", "its process writes the journal")
                return Diagnosis("unsent", "its process is dead", folder)
    host, pid = run.tags.get("host"), run.tags.get("pid", "")
    if host is None or not pid.isdecimal():
        return Diagnosis("unknown", "records no host and process")
    if host != platform.node():
        return Diagnosis("unknown", f"started on {host}")
    if _is_alive(int(pid), run.tags.get("process_start")):
        return Diagnosis("alive", f"process {pid} is alive")
    return Diagnosis("dead", f"process {pid} is dead, and the journal was deleted")


def _is_alive(pid: int, start: str | None) -> bool:
    """True if there is a process `pid`, and it is the one that started then: numbers are used again."""
    import psutil

    with suppress(psutil.NoSuchProcess, OverflowError, ValueError):
        actual = float(psutil.Process(pid).create_time())
        return start is None or abs(actual - float(start)) < START_TOLERANCE
    return False
