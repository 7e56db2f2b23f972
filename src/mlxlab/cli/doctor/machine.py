"""Checks of Python, the platform, memory, cores and the clock."""

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mlxlab.cli.doctor.finding import Finding, finding
from mlxlab.cli.doctor.probe import Check

PYTHON = ((3, 11), (3, 13))  # the oldest and the newest release
GLIBC = (2, 35)  # that the wheels of MLX need
NEEDED = "2.35 or newer: use Debian 12, Ubuntu 22.04 or newer"
MIN_MEMORY = 4e9
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
MAX_CLOCK_ERROR = 5 * 60.0  # seconds


def _python() -> Iterator[Finding]:
    value = f"{platform.python_version()} ({sys.executable})"
    if PYTHON[0] <= sys.version_info[:2] <= PYTHON[1]:
        yield finding("Python", value)
    else:
        yield finding("Python", value, "error", "install mlxlab with Python 3.11, 3.12 or 3.13")


def _platform() -> Iterator[Finding]:
    system, machine = platform.system(), platform.machine()
    known = (system == "Darwin" and machine == "arm64") or (
        system == "Linux" and machine in ("x86_64", "aarch64")
    )
    value = f"{system} {platform.release()} {machine}"
    expected = "MLX has wheels for macOS on Apple silicon, and for Linux on x86_64 and aarch64"
    yield finding("platform", value) if known else finding("platform", value, "error", expected)


def _glibc() -> Iterator[Finding]:
    if sys.platform != "linux":
        return
    name, version = platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if name != "glibc":
        yield finding(
            "glibc", f"another C library {name}".strip(), "error", f"MLX needs glibc {NEEDED}"
        )
    elif numbers < GLIBC:
        yield finding("glibc", version, "error", f"MLX needs {NEEDED}")
    else:
        yield finding("glibc", version)


def _memory() -> Iterator[Finding]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    value, limit = (
        f"{total / 1e9:.1f} GB",
        _cgroup_number("memory.max", "memory/memory.limit_in_bytes"),
    )
    if limit is not None and limit < total:
        value += f", limited to {limit / 1e9:.1f} GB by the container"
        total = limit
    if setting := os.environ.get("MLXLAB_MEMORY"):
        value += f", MLXLAB_MEMORY={setting[:20]}"
    if total < MIN_MEMORY:
        yield finding("memory", value, "warning", "train small models: model/size=nano or tiny")
    else:
        yield finding("memory", value)


def _cores() -> Iterator[Finding]:
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        usable = max(1, min(usable, round(int(quota) / int(period))))
    value = f"{usable}" if usable == total else f"{usable} of {total}"
    for name in THREADS:
        setting = os.environ.get(name, "")
        if setting.isdecimal() and name == THREADS[0]:
            value += f", {name}={setting}"
            if int(setting) > usable:
                yield finding(
                    "cores",
                    value,
                    "warning",
                    f"set {name}={usable}: more threads than cores are slow",
                )
                return
    if usable < total and not os.environ.get(THREADS[0]):
        remedy = f"set {THREADS[0]}={usable}: OpenBLAS would start a thread for each of the {total} cores"
        yield finding("cores", value, "note", remedy)
    else:
        yield finding("cores", value)


def _clock() -> Iterator[Finding]:
    """The clock is behind if this installation is from the future."""
    ahead = Path(__file__).stat().st_mtime - time.time()
    value = time.strftime("%Y-%m-%d %H:%M:%S %z")
    if ahead > MAX_CLOCK_ERROR:
        value += f", {ahead / 3600:.1f} h before mlxlab was installed"
        yield finding(
            "clock", value, "warning", "set the clock: runs are ordered by time, and TLS needs it"
        )
    else:
        yield finding("clock", value)


def _cgroup_number(*files: str) -> int | None:
    for file in files:
        with suppress(OSError, ValueError):
            return int((Path("/sys/fs/cgroup") / file).read_text())
    return None


CHECKS: dict[str, Check] = {
    "Python": _python,
    "platform": _platform,
    "glibc": _glibc,
    "memory": _memory,
    "cores": _cores,
    "clock": _clock,
}
