"""Finds MLflow stores: SQLite files, and folders of files (`mlruns/`)."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.untrusted import open_regular

_HEADER = b"SQLite format 3\0"
_SUFFIXES = (".db", ".sqlite", ".sqlite3")


@dataclass(frozen=True)
class Source:
    """A store to read. Nothing below `path` is ever written."""

    path: Path
    is_database: bool
    root: Path  # Artifacts of a store that was moved are looked up below this folder.


def find_sources(pattern: str, central: Path) -> list[Source]:
    """The stores that a file, a folder or a glob names, without the central one; sorted by path.

    Raises:
        InputNotFoundError: nothing matches.
        DataError: a file that is named is no SQLite database, or nothing that matches is a store.
    """
    pattern = os.path.expanduser(pattern)
    is_glob = not os.path.lexists(pattern)
    matches = glob.glob(pattern, recursive=True, include_hidden=True) if is_glob else [pattern]
    if not matches:
        raise InputNotFoundError(f"source={pattern}: not found")
    sources: list[Source] = []
    for match in matches:
        path = Path(match).resolve()
        if path.is_dir():
            sources += _below(path)
        elif _is_database(path):
            sources.append(Source(path, True, path.parent))
        elif not is_glob:
            raise DataError(f"source={path}: not an SQLite database")
    own = central.resolve()
    stores = {source.path: source for source in sources if not _is_central(source.path, own)}
    if not stores:
        raise DataError(f"source={pattern}: no MLflow store found, except the central one: {own}")
    return [stores[path] for path in sorted(stores)]


def _is_central(path: Path, central: Path) -> bool:
    """Whether a file is the central store or a backup of it."""
    return path == central or str(path).startswith(f"{central}.backup-")


def _below(root: Path) -> Iterator[Source]:
    """The stores in a folder and in its subfolders, except within the runs of a file store."""
    for parent, folders, files in os.walk(root):
        here = Path(parent)
        for name in files:
            if name.endswith(_SUFFIXES) and _is_store(here / name):
                yield Source(here / name, True, root)
        if any(name.isdecimal() and (here / name / "meta.yaml").is_file() for name in folders):
            yield Source(here, False, root)
            folders.clear()


def _is_database(path: Path) -> bool:
    with open_regular(path) as file:
        return file.read(len(_HEADER)) == _HEADER


def _is_store(path: Path) -> bool:
    """Whether a file found in a folder is a store; other databases may lie there too."""
    try:
        if not _is_database(path):
            return False
        with open_regular(path) as file:
            return b"alembic_version" in file.read(2**20)  # the schema stands on the first pages
    except (DataError, InputNotFoundError):
        return False
