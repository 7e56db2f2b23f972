"""Copies the artifacts of runs and logged models to where the central store keeps them."""

import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError, WriteError
from mlxlab.files.atomic import open_atomic
from mlxlab.files.untrusted import open_regular
from mlxlab.tracking.mlflow.address import local_path


@dataclass(frozen=True)
class Move:
    """The folder of a run's or a model's artifacts: as the source names it, and in the central store."""

    location: str
    owner: str  # id of the run or model
    target: Path


@dataclass
class CopyCounts:
    files: int = 0  # copied now
    unchanged: int = 0  # were there already
    links: int = 0  # symbolic links, pipes and devices, which are not read


def find_folder(move: Move, roots: Iterable[Path]) -> Path | None:
    """The folder with the artifacts, also if the store was moved with them; None if there is none.

    A store may come from a stranger: only a folder below one named by the id of its owner is read.
    """
    path = local_path(move.location)
    if path is None:
        return None
    parts = [part for part in path.parts if part != "/"]
    candidates = [path] if path.is_absolute() else []
    candidates += [root.joinpath(*parts[start:]) for root in roots for start in range(len(parts))]
    for candidate in candidates:
        real = Path(os.path.realpath(candidate))
        if move.owner in real.parts and real.is_dir():
            return real
    return None


def copy_artifacts(folder: Path, target: Path, *, dry_run: bool = False) -> CopyCounts:
    """Copies new and newer files; raises WriteError. Every file is complete or absent."""
    counts = CopyCounts()
    for path in _files(folder):
        copy = target / path.relative_to(folder)
        if not path.is_file() or path.is_symlink():
            counts.links += 1
        elif _is_copied(path, copy):
            counts.unchanged += 1
        else:
            counts.files += 1
            if not dry_run:
                _copy(path, copy)
    return counts


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        yield from (Path(parent) / name for name in sorted([*names, *links]))


def _is_copied(path: Path, copy: Path) -> bool:
    if not copy.is_file():
        return False
    new, old = path.stat(), copy.stat()
    return old.st_mtime_ns > new.st_mtime_ns or (old.st_mtime_ns, old.st_size) == (
        new.st_mtime_ns,
        new.st_size,
    )


def _copy(path: Path, copy: Path) -> None:
    """Copies a file with its time, by which `_is_copied` recognises it."""
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
            copy.parent.mkdir(parents=True, exist_ok=True)
            with open_atomic(copy, durable=True) as target:
                shutil.copyfileobj(file, target, 2**20)
                target.flush()
                if target.tell() != status.st_size:
                    raise DataError(f"{path}: changes while it is copied")
                os.utime(target.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
    except InputNotFoundError:
        raise DataError(f"{path}: was removed while it was copied") from None
    except OSError as error:
        raise WriteError(f"{copy}: {error.strerror or error}") from None
