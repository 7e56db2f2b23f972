"""Copies an artifact out of a run folder that anyone may have written, before it is uploaded."""

import os
import shutil
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError, UserError
from mlxlab.files.untrusted import open_regular
from mlxlab.tracking.records import utf8


def copy_artifact(folder: Path, name: str, target: Path) -> str | None:
    """Copies the file or folder `name` of the run folder into the folder `target`, under its own name.

    Only regular files inside the run folder are read: no path leads out of it, be it absolute, through `..` or through
    a symbolic link, and no pipe, socket or device is opened.

    Returns:
        Why it was not copied, or None.

    Raises:
        OSError: `target` cannot be written.
    """
    root = Path(os.path.realpath(folder))
    try:
        source = _resolve(root, root / name)
        if source.is_dir():
            for parent, folders, files in os.walk(source, onerror=_fail):
                copy = target / source.name / Path(parent).relative_to(source)
                copy.mkdir(parents=True, exist_ok=True)
                for entry in (*folders, *files):
                    inside = _resolve(root, Path(parent) / entry)
                    if entry in files:
                        _copy(inside, copy / entry)
        else:
            _copy(source, target / source.name)
    except UserError as error:
        return utf8(str(error))
    return None


def _resolve(root: Path, path: Path) -> Path:
    try:
        real = Path(os.path.realpath(path, strict=True))
    except FileNotFoundError:
        raise InputNotFoundError(f"{path}: not found") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DataError(f"{path}: cannot be read ({error})") from None
    if real == root or not real.is_relative_to(root):
        raise DataError(f"{path}: leads out of the run folder")
    return real


def _copy(source: Path, target: Path) -> None:
    with open_regular(source) as file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy, 2**20)


def _fail(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})")
