"""Memory of this machine and of processes, in bytes."""

from contextlib import suppress
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")


def total_memory() -> int:
    """That of the machine or container."""
    return min(psutil.virtual_memory().total, _limit() or psutil.virtual_memory().total)


def free_memory() -> int:
    """What new processes can take without swapping, in the machine and in the container."""
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):
        if limit := _limit():
            statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
            used = int((_CGROUP / "memory.current").read_text()) - int(statistics.get("inactive_file", 0))
            free = min(free, limit - used)
    return free


def process_memory(pid: int) -> int:
    """Resident memory of a process and its children; 0 if it has ended."""
    total = 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error):
                total += int(each.memory_info().rss)
    return total


def _limit() -> int | None:
    with suppress(OSError, ValueError):
        return int((_CGROUP / "memory.max").read_text())
    return None
