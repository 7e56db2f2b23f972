"""Where a run comes from: who, from which commit, with which versions, on which machine."""

import getpass
import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

VERSIONS = ("mlx", "numpy", "hydra-core", "mlflow-skinny", "tokenizers", "safetensors")
GIT_SECONDS = 1.0


def gather(project: Path) -> dict[str, str]:
    """Tags for the tracker: user, source, git commit and dirty flag, versions, hardware. Takes about 15 ms."""
    return _source() | git(project) | _versions() | _hardware()


def requirements() -> list[str]:
    """What a server of the model has to install: the versions we run with."""
    expected = [line for line in metadata.requires("mlxlab") or [] if "extra ==" not in line]
    found = []
    for line in [*expected, "mlx-cpu"]:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        try:
            found.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return sorted(set(found))


def _source() -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    return {
        "mlflow.user": user,
        "mlflow.source.name": sys.argv[0] or "python",
        "mlflow.source.type": "LOCAL",
        "host": platform.node(),
        "pid": str(os.getpid()),
    }


def git(project: Path) -> dict[str, str]:
    """Commit and dirty flag, `unknown` where git does not answer."""
    commit = _ask_git(project, "rev-parse", "HEAD")
    if not commit:
        return {"git.dirty": "unknown"}
    changes = _ask_git(project, "status", "--porcelain", "--untracked-files=no")
    dirty = "unknown" if changes is None else str(bool(changes)).lower()
    return {"mlflow.source.git.commit": commit, "git.dirty": dirty}


def _ask_git(project: Path, *words: str) -> str | None:
    # A repository's own settings may name a program to run (core.fsmonitor): not for a look at its state.
    command = ["git", "-C", str(project), "--no-optional-locks", "-c", "core.fsmonitor=false", *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_SECONDS, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _versions() -> dict[str, str]:
    found = {"version.python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[f"version.{name}"] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _hardware() -> dict[str, str]:
    bytes_ = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "hardware.system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "hardware.cpu": _cpu(),
        "hardware.cores": str(os.cpu_count()),
        "hardware.memory_gib": f"{bytes_ / 2**30:.1f}",
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
