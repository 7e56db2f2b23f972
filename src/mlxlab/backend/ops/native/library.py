"""Loads a built library into this process, after it was asked whether it finds MLX's arrays in Python's objects."""

import ctypes
from pathlib import Path

import mlx.core as mx

from mlxlab import backend
from mlxlab.backend.ops.native import kernels
from mlxlab.backend.ops.native.toolchain import KernelsUnavailable

_MIN_OFFSET, _MAX_OFFSET = 8, 4096  # bytes from a Python object to what nanobind wraps
_OTHER_LAYOUT = "this build of MLX lays arrays out in another way than expected"
_loaded: dict[Path, str] = {}  # the library that is bound -> its features


def load(path: Path) -> str:
    """Loads and binds a library; returns its features.

    Raises:
        KernelsUnavailable: it cannot be loaded, or is for another MLX.
    """
    if path not in _loaded:
        try:
            library = ctypes.PyDLL(
                str(path)
            )  # calls keep the interpreter's lock: they take microseconds
            features = _check(library)
            kernels.bind(library)
        except (OSError, AttributeError) as error:  # AttributeError: it lacks a function
            raise KernelsUnavailable(f"the library cannot be loaded ({error})") from None
        _loaded.clear()  # only one is bound
        _loaded[path] = features
    set_threads()
    return _loaded[path]


def set_threads() -> None:
    """Takes as many threads as OpenBLAS has in this process."""
    kernels.set_threads(backend.blas_threads())


def _check(library: ctypes.PyDLL) -> str:
    for function in (library.mlxlab_version, library.mlxlab_features, library.mlxlab_probe):
        function.restype = ctypes.c_char_p
    version, installed = library.mlxlab_version().decode(), mx.__version__  # type: ignore[attr-defined]
    if version != installed:
        raise KernelsUnavailable(f"the library is for MLX {version}, and {installed} is installed")
    _probe(library)
    features: str = library.mlxlab_features().decode()
    return features


def _probe(library: ctypes.PyDLL) -> None:
    """C++ reads an array at its place in the Python object, so their layout must be nanobind's."""
    header = object.__basicsize__
    sizes = (ctypes.c_size_t * 4)()
    for array in (mx.zeros((3, 5)), mx.zeros((7,), mx.uint8), mx.array(1.0)):
        if not _MIN_OFFSET <= ctypes.c_int32.from_address(id(array) + header).value < _MAX_OFFSET:
            raise KernelsUnavailable(_OTHER_LAYOUT)
        fault = library.mlxlab_probe(ctypes.c_void_p(id(array)), ctypes.c_size_t(header), sizes)
        expected = (array.size, array.itemsize, array.ndim, array.shape[-1] if array.ndim else 0)
        if fault is not None or tuple(sizes) != expected:
            raise KernelsUnavailable(_OTHER_LAYOUT)
