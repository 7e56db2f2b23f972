"""Typed functions of the native library."""

import ctypes

_library: ctypes.PyDLL | None = None


def bind(library: ctypes.PyDLL) -> None:
    """Uses a loaded library from now on; AttributeError if it lacks a function."""
    global _library
    library.mlxlab_set_threads.argtypes = [ctypes.c_int]
    _library = library


def set_threads(count: int) -> None:
    assert _library is not None
    _library.mlxlab_set_threads(count)
