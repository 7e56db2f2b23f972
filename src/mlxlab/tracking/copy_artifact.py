"""Copies files out of a run folder that anyone may have written."""

import os
import shutil
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.untrusted import open_regular

MAX_NAME = 200  # characters of a path in a message


def copy_artifact(folder: Path, name: str, target: Path) -> Path:
    """Copies the file or folder `name` of the run folder into the folder `target`; returns the copy.

    Only regular files inside the run folder are read: no path leads out of it, be it absolute, through `..` or through
    a symbolic link, and no pipe, socket or device is opened. Raises UserError if there is nothing to read, and OSError
    if `target` cannot be written.
    """
    root = Path(os.path.realpath(folder))
    source = _resolve(root, root / name)
    copy = target / source.name
    target.mkdir(exist_ok=True)
    if not source.is_dir():
        _copy(source, copy)
        return copy
    for parent, folders, files in os.walk(source, onerror=_fail):
        to = copy / Path(parent).relative_to(source)
        to.mkdir()
        inside = {entry: _resolve(root, Path(parent) / entry) for entry in (*folders, *files)}
        for entry in files:
            _copy(inside[entry], to / entry)
    return copy


def _resolve(root: Path, path: Path) -> Path:
    name = os.path.relpath(path, root)
    name = name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."
    try:
        real = Path(os.path.realpath(path, strict=True))
    except FileNotFoundError:
        raise InputNotFoundError(f"{name}: not found") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DataError(f"{name}: cannot be read ({getattr(error, 'strerror', error)})") from None
    if real == root or not real.is_relative_to(root):
        raise DataError(f"{name}: leads out of the run folder")
    return real


def _copy(source: Path, target: Path) -> None:
    with open_regular(source) as file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy, 2**20)


def _fail(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})")
