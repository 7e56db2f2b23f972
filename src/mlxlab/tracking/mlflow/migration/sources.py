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
    root: Path  # the folder that the user named: artifacts that were moved are looked up below it

    @property
    def roots(self) -> list[Path]:
        return list(
            dict.fromkeys(
                [self.path.parent if self.is_database else self.path, self.path.parent, self.root]
            )
        )


def find_sources(pattern: str, central: Path) -> list[Source]:
    """The stores that a file, a folder or a glob names, without the central one; sorted by path.

    Symbolic links below a folder are not followed, except when named.

    Raises:
        InputNotFoundError: nothing matches.
        DataError: a file that is named is no SQLite database, or nothing that matches is a store.
    """
    pattern = os.path.expanduser(pattern)
    is_glob = glob.has_magic(pattern) and not os.path.lexists(pattern)
    matches = glob.glob(pattern, recursive=True, include_hidden=True) if is_glob else [pattern]
    paths = [Path(match).resolve() for match in sorted(matches) if os.path.exists(match)]
    if not paths:
        raise InputNotFoundError(f"source={pattern}: not found")
    prefix = next(
        path for path in (Path(pattern), *Path(pattern).parents) if not glob.has_magic(str(path))
    )
    sources: dict[Path, Source] = {}
    for path in paths:
        if path.is_dir():
            root = prefix.resolve() if is_glob else path
            sources |= {source.path: source for source in _below(path, root)}
        elif _is_database(path):
            sources[path] = Source(path, True, prefix.resolve() if is_glob else path.parent)
        elif not is_glob:
            raise DataError(f"source={path}: not an SQLite database")
    own = central.resolve()
    result = [
        source
        for path, source in sorted(sources.items())
        if path != own and not _is_backup(path, own)
    ]
    if not result:
        raise DataError(f"source={pattern}: no MLflow store found, except the central one: {own}")
    return result


def _is_backup(path: Path, central: Path) -> bool:
    return path.parent == central.parent and path.name.startswith(f"{central.name}.backup-")


def _below(folder: Path, root: Path) -> Iterator[Source]:
    """The stores in a folder and in its subfolders, except within the runs of a file store."""
    for parent, folders, files in os.walk(folder):
        here = Path(parent)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".queue-") and name != ".git"
        )
        for name in files:
            if name.endswith(_SUFFIXES) and _is_store(here / name):
                yield Source(here / name, True, root)
        if experiments := _experiments(here):
            yield Source(here, False, root)
            folders[:] = [
                name for name in folders if name not in {*experiments, ".trash", "models"}
            ]


def _experiments(folder: Path) -> list[str]:
    """Names of the subfolders that are experiments of a file store."""
    return [
        entry.name
        for entry in os.scandir(folder)
        if entry.name.isdecimal()
        and entry.is_dir(follow_symlinks=False)
        and (Path(entry) / "meta.yaml").is_file()
    ]


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
