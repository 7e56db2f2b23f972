"""Checks of MLX, its device, its BLAS and the native kernels."""

import os
import sys
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from mlxlab import backend, program
from mlxlab.cli.doctor.finding import Finding, finding
from mlxlab.cli.doctor.probe import Check


def _install_backend() -> str:
    return f"{program.install_command('cpu')}, with an NVIDIA GPU cuda instead of cpu"


def _backends() -> Iterator[Finding]:
    """On Linux one backend is installed: both ship the same library file."""
    if sys.platform != "linux":
        return
    cuda = [name for name in ("mlx-cuda-12", "mlx-cuda-13") if _version(name)]
    if not cuda and not _version("mlx-cpu"):
        yield finding("MLX backend", "not installed", "error", _install_backend())
    elif len(cuda) + bool(_version("mlx-cpu")) > 1:
        names = " ".join([*cuda, *["mlx-cpu"] * bool(_version("mlx-cpu"))])
        remedy = f"they ship the same file: pip uninstall mlx {names}, then {_install_backend()}"
        yield finding("MLX backend", f"{names} are installed", "error", remedy)


def _device() -> Iterator[Finding]:
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            backend.prepare()
        import mlx.core as mx

        ones = mx.ones((64, 64))
        works = float((ones @ ones).sum()) == 64.0**3
    except (ImportError, RuntimeError) as error:  # RuntimeError: no usable device
        yield finding("MLX", f"cannot be used: {error}", "error", _install_backend())
        return
    facts, installed = backend.describe(), mx.__version__  # type: ignore[attr-defined]
    value = f"{installed}, {facts['device']}, up to {backend.memory_budget() / 1e9:.1f} GB"
    if not works:
        yield finding(
            "MLX", f"{value}: a product of matrices is wrong", "error", _install_backend()
        )
    elif sys.platform == "linux" and backend.on_linux_cpu() and os.path.exists("/dev/nvidia0"):
        remedy = f"this machine has an NVIDIA GPU: pip uninstall mlx-cpu, then {program.install_command('cuda')}"
        yield finding("MLX", value, "note", remedy)
    else:
        yield finding("MLX", value)
    if backend.on_linux_cpu():
        yield _blas(facts["blas"], [str(each.message) for each in caught])


def _blas(blas: str, messages: list[str]) -> Finding:
    if blas == "openblas":
        return finding("BLAS", f"OpenBLAS, threads: {backend.blas_threads()}")
    if os.environ.get("MLXLAB_BLAS") == "0":
        return finding(
            "BLAS", "that of MLX's wheel, some 20 times slower", "warning", "unset MLXLAB_BLAS"
        )
    reason = "; ".join(messages) or "that of MLX's wheel"
    return finding("BLAS", reason, "warning", "pip install --force-reinstall scipy-openblas32")


def _kernels() -> Iterator[Finding]:
    from mlxlab.ops.native.activation import VARIABLE, mode_from_environment
    from mlxlab.ops.native.cache import Cache
    from mlxlab.ops.native.description import describe

    if mode_from_environment() == "off":
        yield finding(
            "kernels", f"{VARIABLE}=off: native kernels are not used", "note", f"unset {VARIABLE}"
        )
        return
    description = describe(Cache())
    status, reason = description["status"], description["reason"]
    if status == "ready":
        yield finding("kernels", description["kernels"])
    elif status == "building":
        yield finding("kernels", "native kernels are being built; later runs use them", "note")
    elif status == "not built":
        yield finding(
            "kernels",
            "native kernels are not built; the first run does so",
            "note",
            "mlxlab kernels build",
        )
    elif status == "failed":
        remedy = (
            "mlxlab kernels info shows the output of the compiler, mlxlab kernels build tries again"
        )
        yield finding("kernels", reason, "warning", remedy)
    elif "compiler" in reason:
        yield finding(
            "kernels", reason, "note", "install one (apt install g++), then mlxlab kernels build"
        )
    elif "GPU" in reason or sys.platform != "linux":
        yield finding("kernels", f"not needed: {reason}")
    else:
        yield finding("kernels", reason, "warning", "mlxlab kernels info")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


CHECKS: dict[str, Check] = {"MLX backend": _backends, "MLX": _device, "kernels": _kernels}
