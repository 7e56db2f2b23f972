"""Memory of this machine, and memory that MLX and the C library keep or could not get."""

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
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), container_limit()]
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        soft, _ = resource.getrlimit(kind)
        limits.append(None if soft == resource.RLIM_INFINITY else soft)
    return min(limit for limit in limits if limit is not None)


def container_limit() -> int | None:
    """The bytes of the container; None without a limit."""
    with suppress(OSError, ValueError):
        return int((CGROUP / "memory.max").read_text())
    return None


def release_memory() -> None:
    """Returns it to the operating system. Imports nothing."""
    if (core := sys.modules.get("mlx.core")) is not None:
        core.clear_cache()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, for which MLX has no exception of its own."""
    if isinstance(error, MemoryError):
        return True
    message = re.search("alloc|out of memory", str(error), re.IGNORECASE)
    return isinstance(error, RuntimeError) and message is not None
