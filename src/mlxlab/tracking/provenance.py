"""Provenance of a run: user, git commit, versions of packages, hardware."""

import getpass
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path

VERSIONS = ("mlx", "numpy", "hydra-core", "mlflow-skinny", "tokenizers", "safetensors")
GIT_SECONDS = 1.0
_CHECKOUT = Path(__file__).resolve().parents[3]


def gather() -> dict[str, str]:
    """All of it as tags for the tracker. Takes about 15 ms."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    tags = {
        "mlflow.user": user,
        "mlflow.source.name": sys.argv[0] or "python",
        "mlflow.source.type": "LOCAL",
        "host": platform.node(),
        "pid": str(os.getpid()),
        "version.python": platform.python_version(),
        "hardware.system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "hardware.cpu": _cpu(),
        "hardware.cores": str(os.cpu_count()),
        "hardware.memory_gib": f"{memory / 2**30:.1f}",
    }
    return tags | git() | {f"version.{name}": version for name, version in _installed(VERSIONS).items()}


def requirements() -> list[str]:
    """Requirements of a served model: our direct dependencies, pinned to the installed versions."""
    lines = [line for line in metadata.requires("mlxlab") or [] if "extra ==" not in line]
    names = {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in [*lines, "mlx-cpu"]}
    return sorted(f"{name}=={version}" for name, version in _installed(names).items())


def git() -> dict[str, str]:
    """Commit and dirty flag of the checkout with this code, else of the current folder; `unknown` outside of any."""
    folder = _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else Path.cwd()
    if not (commit := _git(folder, "rev-parse", "HEAD")):
        return {"git.dirty": "unknown"}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    dirty = "unknown" if changes is None else str(bool(changes)).lower()
    return {"mlflow.source.git.commit": commit, "git.dirty": dirty}


def _git(folder: Path, *args: str) -> str | None:
    # core.fsmonitor of a repository may name a program, which `git status` would run.
    command = ["git", "-C", str(folder), "--no-optional-locks", "-c", "core.fsmonitor=false", *args]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _installed(names: Iterable[str]) -> dict[str, str]:
    """name -> version of the packages that are installed."""
    versions = {}
    for name in names:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _cpu() -> str:
    with suppress(OSError, StopIteration):  # no Linux, or no such line
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()
