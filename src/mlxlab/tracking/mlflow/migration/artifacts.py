"""Copies the artifacts of runs and logged models to where the central store keeps them."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlxlab.errors import WriteError
from mlxlab.files.atomic import open_atomic
from mlxlab.files.untrusted import open_regular
from mlxlab.tracking.mlflow.address import local_path


@dataclass(frozen=True)
class Move:
    """The folder of a run's or a model's artifacts: as the source names it, and in the central store."""

    location: str
    owner: str  # id of the run or model
    target: Path


def find_folder(move: Move, roots: Iterable[Path]) -> Path | None:
    """The folder with the artifacts, also if the store was moved with them; None if there is none.

    A store may come from a stranger: only a folder below one named by the id of its owner is read.
    """
    path = local_path(move.location)
    if path is None:
        return None
    parts = [part for part in path.parts if part != "/"]
    candidates = [path] if path.is_absolute() else []
    for root in roots:
        candidates += [root.joinpath(*parts[start:]) for start in range(len(parts))]
    for candidate in candidates:
        real = Path(os.path.realpath(candidate))
        if move.owner in real.parts and real.is_dir():
            return real
    return None


def copy_artifacts(folder: Path, target: Path, *, dry_run: bool) -> int:
    """Copies new and newer files, without symbolic links and pipes; returns their number. Raises WriteError."""
    count = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            copy = target / path.relative_to(folder)
            if path.is_symlink() or not path.is_file() or _is_copied(path, copy):
                continue
            count += 1
            if not dry_run:
                _copy(path, copy)
    return count


def _is_copied(path: Path, copy: Path) -> bool:
    if not copy.is_file():
        return False
    source, status = path.stat(), copy.stat()
    return status.st_mtime_ns >= source.st_mtime_ns and status.st_size == source.st_size


def _copy(path: Path, copy: Path) -> None:
    """Copies a file with its time, by which `_is_copied` recognises it: complete or not at all."""
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with open_regular(path) as file, open_atomic(copy, durable=True) as target:
            shutil.copyfileobj(file, target, 2**20)
        shutil.copystat(path, copy)
    except OSError as error:
        raise WriteError(f"{copy}: {error.strerror or error}") from None
