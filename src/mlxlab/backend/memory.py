"""Memory of this machine and its processes, and memory that MLX and the C library keep or could not get."""

import ctypes
import os
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def total_memory() -> int:
    """The bytes of the machine, of its container, or of what the system admits for this process."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    container = container_limit()
    if container is not None:
        limits.append(container)
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        if soft != resource.RLIM_INFINITY:
            limits.append(soft)
    return min(limits)


def container_limit() -> int | None:
    """The bytes of the container; None without a limit."""
    with suppress(OSError, ValueError):
        return int((CGROUP / "memory.max").read_text())
    return None


def release_memory() -> None:
    """Returns it to the operating system. Imports nothing."""
    if "mlx.core" in sys.modules:
        sys.modules["mlx.core"].clear_cache()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, for which MLX has no exception of its own."""
    if isinstance(error, MemoryError):
        return True
    message = re.search("alloc|out of memory", str(error), re.IGNORECASE)
    return isinstance(error, RuntimeError) and message is not None


def free_memory() -> int:
    """What new processes can take without swapping, in the machine and in the container."""
    import psutil  # Imports of this package take no time.

    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):
        limit = container_limit()
        if limit:
            lines = (CGROUP / "memory.stat").read_text().splitlines()
            inactive = dict(line.split() for line in lines).get("inactive_file", 0)
            used = int((CGROUP / "memory.current").read_text()) - int(inactive)
            free = min(free, limit - used)
    return free


def process_memory(pid: int) -> int:
    """Resident memory of a process and its children; 0 if it has ended."""
    import psutil

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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":
        return peak
    return 1024 * peak
