"""Folders and files of a file store, without symbolic links to folders."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mlxlab.files.untrusted import read_text


def folders(parent: Path) -> Iterator[Path]:
    """The subfolders by name; none if there is no such folder."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in sorted(os.scandir(parent), key=lambda entry: entry.name):
            if entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def paths(folder: Path) -> Iterator[tuple[Path, str]]:
    """(file, key) of parameters, tags or metrics; a key with slashes lies in subfolders."""
    for parent, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(parent) / name
            yield path, path.relative_to(folder).as_posix()


def files(folder: Path) -> Iterator[tuple[str, str]]:
    """(key, text); raises DataError for what is no regular text file."""
    for path, key in paths(folder):
        yield key, read_text(path)


def values(folder: Path) -> dict[str, str]:
    """Key -> value of parameters or tags."""
    return dict(files(folder))
