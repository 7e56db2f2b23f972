"""OpenBLAS for MLX on Linux CPU, whose wheel carries the reference BLAS, some 15 to 30 times slower.

The entries of its jump table (ELF: PLT, GOT) for `cblas_sgemm` and related routines are redirected to OpenBLAS, from
the package scipy-openblas32 or an installed SciPy. Other libraries are unaffected (preloading a library with global
symbols would change PyTorch's products too), and it works before and after the import of `mlx.core`.
"""

import ctypes
import importlib.util
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

ROUTINES = ("sgemm", "dgemm", "cgemm", "zgemm")
JUMPS = {62: (6, 7), 183: (1025, 1026)}  # x86-64 and AArch64: GLOB_DAT, JUMP_SLOT
RELOCATIONS = 4  # type of a section: SHT_RELA


def use_openblas(works: Callable[[], bool]) -> bool:
    """Redirects libmlx and checks it by `works`; False if there is nothing to redirect (no such calls, or MLX's CUDA).

    Raises:
        OSError: OpenBLAS not found, or the redirection failed; libmlx is unchanged then.
    """
    library = mlx_library()
    if library is None or is_for_cuda(library):
        return False
    offsets = {
        name: offset for name, offset in jump_slots(library.read_bytes()) if name[6:] in ROUTINES
    }
    if "cblas_sgemm" not in offsets:
        return False
    openblas = find_openblas()
    ctypes.CDLL(str(library))  # loaded now, so that its address is known
    base = _base_address(library)
    addresses = {base + offset: _address(openblas, name) for name, offset in offsets.items()}
    before = {slot: ctypes.c_void_p.from_address(slot).value or 0 for slot in addresses}
    _write(addresses)
    if not works():
        _write(before)
        raise OSError("its products were wrong")
    return True


def mlx_library() -> Path | None:
    """The libmlx.so that `import mlx.core` loads."""
    paths = [folder / "lib" / "libmlx.so" for folder in _packages("mlx")]
    return next(filter(Path.is_file, paths), None)


def is_for_cuda(library: Path) -> bool:
    """Whether a libmlx.so is that of MLX for CUDA."""
    return any(library.parents[2].glob("mlx_cuda*"))


@cache
def find_openblas() -> ctypes.CDLL:
    """OpenBLAS with 32-bit integers and prefixed symbols; that of NumPy has 64-bit integers."""
    # Idle threads spin long by default, and starve others.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "16")
    for folder in _folders():
        for path in sorted(folder.glob("libscipy_openblas*.so*")):
            if "64_" not in path.name:
                return ctypes.CDLL(str(path))
    raise OSError("the package scipy-openblas32 is not installed")


def blas_threads(new: int | None = None) -> int:
    """Number of OpenBLAS threads, 1 without OpenBLAS; sets it to `new` if not None, and returns the old number."""
    try:
        openblas = find_openblas()
        count = int(openblas.scipy_openblas_get_num_threads())
        if new is not None:
            openblas.scipy_openblas_set_num_threads(new)
    except (OSError, AttributeError):
        return 1
    return count


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limits BLAS to one thread: for code that uses all cores itself."""
    before = blas_threads(1)
    try:
        yield
    finally:
        blas_threads(before)


def jump_slots(elf: bytes) -> list[tuple[str, int]]:
    """(symbol, offset) of every function called through the tables of an ELF64 library; OSError if it is none."""
    machine = 0
    if elf[:6] == b"\x7fELF\x02\x01":
        [machine] = struct.unpack_from("<H", elf, 0x12)
    if machine not in JUMPS:
        raise OSError(f"not a library of x86-64 or AArch64 (machine {machine})")
    start = struct.unpack_from("<Q", elf, 0x28)[0]
    size, count = struct.unpack_from("<HH", elf, 0x3A)
    if count == 0:
        raise OSError("the library has no section headers")
    # (type, offset in the file, size, number of the section that it refers to)
    sections = [struct.unpack_from("<4xI16xQQI", elf, start + i * size) for i in range(count)]
    slots = []
    for kind, table, length, link in sections:
        if kind != RELOCATIONS:
            continue
        _, symbols, _, names = sections[link]
        for offset, info, _ in struct.iter_unpack("<QQq", elf[table : table + length]):
            if info & 0xFFFFFFFF in JUMPS[machine]:
                [name] = struct.unpack_from("<I", elf, symbols + (info >> 32) * 24)
                name += sections[names][1]
                slots.append((elf[name : elf.index(b"\0", name)].decode(), offset))
    return slots


def _folders() -> list[Path]:
    """Folders that may hold OpenBLAS."""
    packages = _packages("scipy_openblas32", "scipy")
    libraries = [folder.parent / "scipy.libs" for folder in packages]
    return [*(folder / "lib" for folder in packages), *libraries]


def _packages(*names: str) -> list[Path]:
    """The folders of packages, which are not imported: SciPy takes a second."""
    folders: list[Path] = []
    for name in names:
        spec = importlib.util.find_spec(name)
        if spec:
            folders += map(Path, spec.submodule_search_locations or [])
    return folders


def _address(openblas: ctypes.CDLL, name: str) -> int:
    if not hasattr(openblas, f"scipy_{name}"):
        raise OSError(f"{openblas._name} has no scipy_{name}")
    return ctypes.cast(getattr(openblas, f"scipy_{name}"), ctypes.c_void_p).value or 0


def _base_address(library: Path) -> int:
    real = os.path.realpath(library)
    for (start, _), _, offset, path in _mappings():
        if path == real and offset == 0:
            return start
    raise OSError(f"{library} is not loaded")


def _write(values: dict[int, int]) -> None:
    """Writes each value to its address, all or none: a write to a read-only page would kill the process."""
    writable = [span for span, rights, _, _ in _mappings() if "w" in rights]
    for address in values:
        if not any(start <= address < end for start, end in writable):
            raise OSError("libmlx's jump table is read-only")
    for address, value in values.items():
        ctypes.c_void_p.from_address(address).value = value


def _mappings() -> list[tuple[tuple[int, int], str, int, str]]:
    """(start, end), permissions, offset in the file, path of every memory mapping of this process."""
    mappings = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, offset, _, _, *path = line.split(maxsplit=5)
        start, end = (int(number, 16) for number in span.split("-"))
        mappings.append(((start, end), rights, int(offset, 16), "".join(path)))
    return mappings
