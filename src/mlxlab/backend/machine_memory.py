"""Memory in use by this machine and its processes, in bytes."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from mlxlab.backend.memory import CGROUP, container_limit


def free_memory() -> int:
    """What new processes can take without swapping, in the machine and in the container."""
    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):
        if limit := container_limit():
            statistics = dict(
                line.split() for line in (CGROUP / "memory.stat").read_text().splitlines()
            )
            used = int((CGROUP / "memory.current").read_text()) - int(
                statistics.get("inactive_file", 0)
            )
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


def peak_memory() -> int:
    """The largest resident memory of this process so far."""
    with suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
