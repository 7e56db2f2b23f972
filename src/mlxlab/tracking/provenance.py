"""Provenance of a run: user, git commit, versions of packages, hardware."""

import functools
import getpass
import hashlib
import os
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TypedDict

from mlxlab.redact import redact, redact_secrets

VERSIONS = ("mlx", "numpy", "hydra-core", "mlflow-skinny", "tokenizers", "safetensors")
GIT_SECONDS = 1.0
DIFF_SECONDS = 3.0
MAX_DIFF_BYTES = 256 * 2**10
_CHECKOUT = Path(__file__).resolve().parents[3]


class Code(TypedDict):
    """The code of a run.

    Attributes:
        commit: of the checkout; None outside of any, or while git has not answered.
        diff: the changes to its files that are not committed, without secrets, at most MAX_DIFF_BYTES; None if unknown.
        digest: of `diff`; "" if there are none.
    """

    commit: str | None
    diff: str | None
    digest: str | None


UNKNOWN_CODE: Code = {"commit": None, "diff": None, "digest": None}


def gather() -> dict[str, str]:
    """All of it as tags for the tracker. Takes about 15 ms."""
    import psutil

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
        "process_start": f"{psutil.Process().create_time():.2f}",  # seconds since 1970: pids are used again
        "version.python": platform.python_version(),
        "hardware.system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "hardware.cpu": cpu(),
        "hardware.cores": str(os.cpu_count()),
        "hardware.memory_gib": f"{memory / 2**30:.1f}",
    }
    return (
        tags
        | git()
        | {f"version.{name}": version for name, version in _installed(VERSIONS).items()}
    )


def requirements() -> list[str]:
    """Requirements of a served model: our direct dependencies, pinned to the installed versions."""
    names = {*_dependencies(), "mlx-cpu"}
    return sorted(f"{name}=={version}" for name, version in _installed(names).items())


@functools.cache
def dependency_versions() -> dict[str, str]:
    """name -> version of mlxlab, its direct dependencies, and the backends of MLX. Takes some 10 ms the first time."""
    return _installed(
        ["mlxlab", *_dependencies(), "mlx-cpu", "mlx-metal", "mlx-cuda-12", "mlx-cuda-13"]
    )


def _dependencies() -> list[str]:
    lines = [line for line in metadata.requires("mlxlab") or [] if "extra ==" not in line]
    return sorted({re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines})


def git() -> dict[str, str]:
    """Commit and dirty flag of the checkout with this code, else of the current folder; `unknown` outside of any."""
    folder = _checkout()
    if not (commit := _git(folder, "rev-parse", "HEAD")):
        return {"git.dirty": "unknown"}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    dirty = "unknown" if changes is None else str(bool(changes)).lower()
    return {"mlflow.source.git.commit": commit, "git.dirty": dirty}


def code(tags: dict[str, str]) -> Code:
    """The code of a run, by what `git` returned."""
    match tags["git.dirty"]:
        case "true":
            diff = _diff()
        case "false":
            diff = ""
        case _:
            diff = None
    digest = hashlib.sha256(diff.encode()).hexdigest() if diff else diff
    return {"commit": tags.get("mlflow.source.git.commit"), "diff": diff, "digest": digest}


def _checkout() -> Path:
    return _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else Path.cwd()


def _command(folder: Path, *args: str) -> list[str]:
    # core.fsmonitor of a repository may name a program, which `git status` would run.
    return ["git", "-C", str(folder), "--no-optional-locks", "-c", "core.fsmonitor=false", *args]


def _diff() -> str | None:
    """The uncommitted changes of the checkout without secrets, the first MAX_DIFF_BYTES of them; None if unknown."""
    command = _command(_checkout(), "diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
    null = subprocess.DEVNULL
    try:
        with subprocess.Popen(command, stdin=null, stdout=subprocess.PIPE, stderr=null) as process:
            timer = threading.Timer(DIFF_SECONDS, process.kill)
            timer.start()
            assert process.stdout is not None
            data = process.stdout.read(MAX_DIFF_BYTES + 1)
            truncated = len(data) > MAX_DIFF_BYTES
            if truncated:
                process.kill()
            ended = process.wait() == 0
            timer.cancel()
    except OSError:
        return None
    text = redact_secrets(redact(data[:MAX_DIFF_BYTES].decode("utf-8", "replace")))
    return text if ended or truncated else None


def _git(folder: Path, *args: str) -> str | None:
    command = _command(folder, *args)
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=GIT_SECONDS, stdin=subprocess.DEVNULL
        )
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


def cpu() -> str:
    """Name of the processor."""
    with suppress(OSError, StopIteration):  # no Linux, or no such line
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    return platform.processor() or platform.machine()
