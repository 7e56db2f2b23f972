"""The code of a run: its commit, its uncommitted changes, the versions of packages; and the processor."""

import functools
import hashlib
import platform
import re
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TypedDict

from mlxlab.terminal.redact import redact, redact_secrets

GIT_SECONDS = 2.0
MAX_DIFF = 256 * 2**10  # characters
_CHECKOUT = Path(__file__).resolve().parents[3]


class Code(TypedDict):
    """The code of a run.

    Attributes:
        commit: of the checkout; None outside of any, or while git has not answered.
        diff: the changes to its files that are not committed, without secrets, at most MAX_DIFF characters; None if unknown.
        digest: of `diff`; "" if there are none.
    """

    commit: str | None
    diff: str | None
    digest: str | None


UNKNOWN_CODE: Code = {"commit": None, "diff": None, "digest": None}


@functools.cache
def dependency_versions() -> dict[str, str]:
    """name -> version of mlxlab, its direct dependencies, and the backends of MLX. Takes some 10 ms the first time."""
    lines = [line for line in metadata.requires("mlxlab") or [] if "extra ==" not in line]
    dependencies = sorted({re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines})
    versions = {}
    for name in ("mlxlab", *dependencies, "mlx-cpu", "mlx-metal", "mlx-cuda-12", "mlx-cuda-13"):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def git() -> dict[str, str]:
    """Commit and dirty flag of the checkout with this code, else of the current folder; `unknown` outside of any."""
    folder = _checkout()
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {"mlflow.source.git.dirty": "unknown"}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    dirty = "unknown" if changes is None else str(bool(changes)).lower()
    return {"mlflow.source.git.commit": commit.strip(), "mlflow.source.git.dirty": dirty}


def code(tags: dict[str, str]) -> Code:
    """The code of a run, by what `git` returned."""
    diff = digest = None
    if tags["mlflow.source.git.dirty"] == "false":
        diff = digest = ""
    elif tags["mlflow.source.git.dirty"] == "true":
        options = ("--no-ext-diff", "--no-textconv", "--no-color")
        text = _git(_checkout(), "diff", *options, "HEAD")
        if text is not None:
            diff = redact_secrets(redact(text[:MAX_DIFF]))
            digest = hashlib.sha256(diff.encode()).hexdigest()
    return {"commit": tags.get("mlflow.source.git.commit"), "diff": diff, "digest": digest}


def _checkout() -> Path:
    return _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else Path.cwd()


def _git(folder: Path, *args: str) -> str | None:
    """The output of git; None if it fails or takes longer."""
    # core.fsmonitor of a repository may name a program, which `git status` would run.
    options = ["-C", str(folder), "--no-optional-locks", "-c", "core.fsmonitor=false"]
    try:
        result = subprocess.run(
            ["git", *options, *args],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return None if result.returncode else result.stdout.decode("utf-8", "replace")


def cpu() -> str:
    """Name of the processor."""
    with suppress(OSError, StopIteration):  # no Linux, or no such line
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.partition(":")[2].strip() for line in lines if line.startswith("model name")
        )
    return platform.processor() or platform.machine()
