"""Memory that MLX and the C library keep for later use."""

import ctypes
import sys


def release_memory() -> None:
    """Returns it to the operating system. Imports nothing."""
    if (core := sys.modules.get("mlx.core")) is not None:
        core.clear_cache()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
