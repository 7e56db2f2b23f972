"""When an attempt that was killed, and could not record its end, changed a file of its folder last."""

from contextlib import suppress
from pathlib import Path

_BY_OTHERS = ("report.html", "verify.json")  # may be written by other commands later


def last_change(folder: Path, start: float, before: float) -> float:
    """The time of the last change since the attempt began at `start`; the process of the next one began at `before`."""
    times = [start]
    with suppress(OSError):
        times += [path.stat().st_mtime for path in folder.iterdir() if path.name not in _BY_OTHERS]
    return max(time for time in times if time <= max(before, start))
