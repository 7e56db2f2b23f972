"""What must happen before `mlx.core` is used: a fast BLAS on Linux CPU, the cache limit, the device.

The Linux wheel of MLX carries the reference BLAS, 30 times slower than what these machines can do. Here the entries of
its jump table (PLT) for `cblas_sgemm` and its kin are pointed at OpenBLAS, from the package scipy-openblas32. Nobody
else in the process is touched, and it works after the import too. macOS and CUDA are left as they are.
"""

import ctypes
import importlib.util
import os
import struct
import sys
import warnings
from pathlib import Path

ROUTINES = ("sgemm", "dgemm", "cgemm", "zgemm")
CACHE_BYTES = 2 << 30  # MLX keeps 32 MB of CPU buffers by default: every step would map its logits anew
_state = {"blas": "as installed"}


def prepare() -> str:
    """Makes MLX fast on this machine, once per process; returns the BLAS in use.

    `MLXLAB_BLAS=0` leaves the BLAS as it was installed. A failure is one warning: correct, but slow.
    """
    if _state["blas"] == "as installed" and sys.platform == "linux" and os.environ.get("MLXLAB_BLAS", "1") != "0":
        _state["blas"] = _use_openblas()
    import mlx.core as mx

    if mx.default_device() == mx.Device(mx.cpu):
        mx.set_cache_limit(CACHE_BYTES)
    return _state["blas"]


def describe() -> dict[str, str]:
    """Tags of a run: device and BLAS."""
    import mlx.core as mx

    return {"device": str(mx.default_device()), "blas": _state["blas"]}


def _use_openblas() -> str:
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")  # its threads spin for seconds otherwise
    try:
        library = _mlx_library()
        if library is None or "cuda" in _distribution(library):
            return "as installed"
        openblas = _openblas()
        ctypes.CDLL(str(library))
        slots = {name: ctypes.cast(getattr(openblas, f"scipy_cblas_{name}"), ctypes.c_void_p) for name in ROUTINES}
        count = _redirect(library, {f"cblas_{name}": pointer.value or 0 for name, pointer in slots.items()})
        if count == 0 or not _right():
            raise OSError("its calls to cblas_sgemm could not be redirected")
    except (OSError, ImportError, AttributeError, struct.error) as error:
        warnings.warn(f"OpenBLAS is not used, matrix products are about 30 times slower: {error}", stacklevel=3)
        return "reference"
    return "openblas"


def _mlx_library() -> Path | None:
    spec = importlib.util.find_spec("mlx")
    folders = list(spec.submodule_search_locations or []) if spec else []
    return next((path for folder in folders if (path := Path(folder) / "lib" / "libmlx.so").is_file()), None)


def _distribution(library: Path) -> str:
    """The backend's packages leave a folder of their own beside `mlx`."""
    beside = library.parents[2]
    return "cuda" if any(beside.glob("mlx_cuda*")) else "cpu"


def _openblas() -> ctypes.CDLL:
    import scipy_openblas32

    folder = Path(scipy_openblas32.get_lib_dir())
    return ctypes.CDLL(str(next(folder.glob("libscipy_openblas*.so"))))


def _redirect(library: Path, targets: dict[str, int]) -> int:
    """Writes the addresses into the slots of the loaded library; returns how many were found."""
    base = _base_address(library)
    count = 0
    for name, offset in _slots(library.read_bytes()):
        if name in targets:
            ctypes.c_void_p.from_address(base + offset).value = targets[name]
            count += 1
    return count


def _base_address(library: Path) -> int:
    real = os.path.realpath(library)
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5] == real and int(fields[2], 16) == 0:
            return int(fields[0].split("-")[0], 16)
    raise OSError(f"{library} is not loaded")


def _slots(elf: bytes) -> list[tuple[str, int]]:
    """(symbol, offset) of every entry of the jump table of an ELF64 library."""
    start, size, count = struct.unpack_from("<Q", elf, 0x28)[0], *struct.unpack_from("<HH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, start + i * size) for i in range(count)]
    names = headers[struct.unpack_from("<H", elf, 0x3E)[0]]
    by_name = {_text(elf, names[4] + header[0]): header for header in headers}
    symbols, strings, plt = by_name[".dynsym"], by_name[".dynstr"], by_name[".rela.plt"]
    found = []
    for at in range(plt[4], plt[4] + plt[5], 24):
        offset, info = struct.unpack_from("<QQ", elf, at)
        name = struct.unpack_from("<I", elf, symbols[4] + (info >> 32) * 24)[0]
        found.append((_text(elf, strings[4] + name), offset))
    return found


def _text(elf: bytes, at: int) -> str:
    return elf[at : elf.index(b"\0", at)].decode()


def _right() -> bool:
    """A product of integers is exact: the redirected routine must agree to the last bit."""
    import mlx.core as mx
    import numpy as np

    a, b = np.arange(35, dtype=np.float32).reshape(5, 7), np.arange(21, dtype=np.float32).reshape(7, 3)
    with mx.stream(mx.cpu):
        return bool(np.array_equal(np.array(mx.array(a) @ mx.array(b)), a @ b))
