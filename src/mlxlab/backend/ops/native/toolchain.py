"""What a build depends on: sources, compiler, flags, processor and the installed MLX; its key, without a subprocess."""

import hashlib
import os
import platform
import shlex
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mlxlab.backend import on_cpu
from mlxlab.backend.openblas import is_for_cuda, mlx_library

SOURCES = Path(__file__).parent / "sources"
COMPILERS = ("g++", "clang++", "c++")
MACHINES = {"x86_64": "-march", "aarch64": "-mcpu"}  # the option that names the processor
ARCH = "MLXLAB_NATIVE_ARCH"
_FLAGS = (
    "-std=c++20",
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp-simd",
    "-Wno-psabi",
    "-fvisibility=hidden",
    "-fPIC",
    "-shared",
    "-pthread",
)
_CPU_KEYS = {
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "stepping",
    "flags",
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
    "Features",
}
_FORMAT = 4  # version of the files that a build leaves
_ELF_START = 4096  # bytes of a library: they hold its build id


class KernelsUnavailable(Exception):
    """Why there are no native kernels here, in one line."""


@dataclass(frozen=True)
class Toolchain:
    """What the native kernels are built with.

    Args:
        compiler: its command.
        mlx: the folder of the installed package, with its headers and `libmlx.so`.
        cpu: model and flags of the processor.
    """

    compiler: tuple[str, ...]
    flags: tuple[str, ...]
    mlx: Path
    mlx_version: str
    cpu: dict[str, str]

    @cached_property
    def digest(self) -> str:
        """The hash of what decides the results: sources and flags."""
        content = hashlib.sha256("\0".join(self.flags).encode())
        for path in source_files():
            content.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return content.hexdigest()[:16]

    @cached_property
    def key(self) -> str:
        """The hash of all that the library depends on, in hexadecimal digits."""
        program = Path(os.path.realpath(self.compiler[0]))
        library = self.mlx / "lib" / "libmlx.so"
        with library.open("rb") as file:
            start = file.read(_ELF_START)
        values = (
            _FORMAT,
            self.digest,
            self.compiler,
            str(program),
            program.stat().st_size,
            program.stat().st_mtime_ns,
            sorted(self.cpu.items()),
            self.mlx_version,
            library.stat().st_size,
            start,
        )
        return hashlib.sha256(repr(values).encode()).hexdigest()[:24]

    def command(self, output: Path) -> list[str]:
        """The command that builds the library. libmlx is loaded before it, so its path is not recorded."""
        include = f"-I{self.mlx / 'include'}"
        libraries = f"-L{self.mlx / 'lib'}"
        return [
            *self.compiler,
            *self.flags,
            include,
            str(SOURCES / "native.cpp"),
            "-o",
            str(output),
            libraries,
            "-lmlx",
        ]


def find_toolchain() -> Toolchain:
    """The toolchain of this machine; raises KernelsUnavailable if it has none. MLX is imported."""
    check_platform()
    import mlx.core as mx

    library = mlx_library()
    assert library is not None
    cpu = read_cpu()
    return Toolchain(find_compiler(), compiler_flags(cpu), library.parents[1], mx.__version__, cpu)  # type: ignore[attr-defined]


def check_platform() -> None:
    """Raises KernelsUnavailable where the kernels cannot be built: they are for Linux and MLX's CPU wheel."""
    if not on_cpu():
        raise KernelsUnavailable("the default device is a GPU; they are for the CPU")
    machine = platform.machine()
    system = platform.system()
    if system != "Linux" or machine not in MACHINES:
        raise KernelsUnavailable(f"{system} {machine}: expected Linux on {' or '.join(MACHINES)}")
    library = mlx_library()
    if library is None or not (library.parents[1] / "include" / "mlx").is_dir():
        raise KernelsUnavailable("the installed MLX has no libmlx.so or no headers")
    if is_for_cuda(library):
        raise KernelsUnavailable("MLX for CUDA is installed; they are for MLX's CPU wheel")


def find_compiler() -> tuple[str, ...]:
    """The command of `CXX`, else the first compiler found; raises KernelsUnavailable if there is none."""
    setting = os.environ.get("CXX")
    if setting:
        try:
            program, *args = shlex.split(setting)
        except ValueError:
            raise KernelsUnavailable(
                f"CXX={setting[:80]!r}: expected the command of a C++ compiler"
            ) from None
        path = shutil.which(program)
        if path is None:
            raise KernelsUnavailable(f"CXX={setting[:80]!r}: not found")
        return (path, *args)
    path = next(filter(None, map(shutil.which, COMPILERS)), None)
    if path is None:
        raise KernelsUnavailable(f"no C++ compiler ({', '.join(COMPILERS)})")
    return (path,)


def compiler_flags(cpu: dict[str, str]) -> tuple[str, ...]:
    """The flags for this processor, or for that of `MLXLAB_NATIVE_ARCH`."""
    arch = os.environ.get(ARCH) or "native"
    flags = (*_FLAGS, f"{MACHINES[platform.machine()]}={arch}")
    if arch == "native" and "avx512f" in cpu.get("flags", "").split():
        return (*flags, "-mprefer-vector-width=512")
    return flags


def read_cpu() -> dict[str, str]:
    """Model and flags of the first processor."""
    values = {}
    with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if not line.strip():
                break
            if name.strip() in _CPU_KEYS:
                values[name.strip()] = value.strip()
    return values


def source_files() -> list[Path]:
    return sorted(path for path in SOURCES.iterdir() if path.suffix in (".cpp", ".h"))
