"""Checks that folders can be written, and of their free space."""

import os
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile

from mlxlab.cli.doctor.finding import Finding, finding
from mlxlab.cli.doctor.probe import Check
from mlxlab.config.paths import project_root

FREE_BYTES = 2e9  # with less there is a warning
MAX_SKEW = 60.0  # seconds between this machine's clock and that of a file server


def _folder(name: str, folder: Path, remedy: str) -> Iterator[Finding]:
    """A folder that a run writes to, or the nearest existing one above it."""
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    try:
        with TemporaryFile(dir=existing) as file:
            skew = os.fstat(file.fileno()).st_mtime - time.time()
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error})"
        yield finding(name, f"{existing}: {reason}", "error", f"make it writable, or {remedy}")
        return
    usage, nodes = shutil.disk_usage(existing), os.statvfs(existing)
    value = f"{folder}: writable, {usage.free / 1e9:,.1f} GB free"
    if usage.free < FREE_BYTES:
        yield finding(name, value, "warning", f"free some space, or {remedy}")
    elif nodes.f_files and nodes.f_favail < 1000:
        yield finding(
            name,
            f"{value}, but only {nodes.f_favail} more files",
            "warning",
            f"delete files, or {remedy}",
        )
    elif abs(skew) > MAX_SKEW:
        value += f"; its server's clock differs by {skew:+.0f} s"
        yield finding(name, value, "warning", "synchronise the clocks (NTP)")
    else:
        yield finding(name, value)


def _checks() -> dict[str, Check]:
    user = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~")) / ".cache")
        / "mlxlab"
    )
    elsewhere = "work in another folder"
    return {
        "outputs": partial(
            _folder,
            "outputs",
            project_root() / "outputs",
            f"{elsewhere}, or set hydra.run.dir=FOLDER",
        ),
        "cache": partial(_folder, "cache", project_root() / ".cache", elsewhere),
        "user cache": partial(_folder, "user cache", user, "set XDG_CACHE_HOME=FOLDER"),
    }


CHECKS = _checks()
