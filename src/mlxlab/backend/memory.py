"""Memory that MLX and the C library keep for later use, and that they could not get."""

import ctypes
import re
import sys


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
