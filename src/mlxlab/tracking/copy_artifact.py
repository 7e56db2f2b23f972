"""Copies files out of a run folder that anyone may have written."""

import os
import shutil
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.untrusted import open_regular

MAX_NAME = 200  # characters of a path in a message
MAX_PATH = 1024  # bytes of a path within an artifact: it is longer in the store


def copy_artifact(folder: Path, name: str, target: Path) -> Path:
    """Copies the file or folder `name` of the run folder into the folder `target`; returns the copy.

    At most half of what is free on the disk of `target` is copied: a file with holes may be of any size.

    Only regular files inside the run folder are read: no path leads out of it, be it absolute, through `..` or through
    a symbolic link, and no pipe, socket or device is opened. Raises UserError if there is nothing to read, and OSError
    if `target` cannot be written.
    """
    root = Path(os.path.realpath(folder))
    source = _resolve(root, root / name)
    copy = target / source.name
    files = {copy: source}
    subfolders = []
    if source.is_dir():
        files = {}
        for parent, folders, names in os.walk(source, onerror=_fail):
            relative = Path(parent).relative_to(source)
            if len(os.fsencode(relative)) > MAX_PATH:
                raise DataError(f"{_short(name)}: holds a path of more than {MAX_PATH} bytes")
            inside = {entry: _resolve(root, Path(parent) / entry) for entry in (*folders, *names)}
            subfolders.append(copy / relative)
            files |= {copy / relative / entry: inside[entry] for entry in names}
    target.mkdir(exist_ok=True)
    try:
        size = sum(file.stat().st_size for file in files.values())
    except OSError as error:
        raise DataError(f"{_short(name)}: cannot be read ({error.strerror})") from None
    limit = shutil.disk_usage(target).free // 2
    if size > limit:
        raise DataError(
            f"{_short(name)}: {size} bytes, more than half of what is free on the disk ({limit} bytes)"
        )
    for subfolder in subfolders:
        subfolder.mkdir()
    for path, original in files.items():
        with open_regular(original) as file, path.open("wb") as output:
            shutil.copyfileobj(file, output, 2**20)
    return copy


def _resolve(root: Path, path: Path) -> Path:
    name = _short(os.path.relpath(path, root))
    try:
        real = Path(os.path.realpath(path, strict=True))
    except FileNotFoundError:
        raise InputNotFoundError(f"{name}: not found") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DataError(f"{name}: cannot be read ({getattr(error, 'strerror', error)})") from None
    if real == root or not real.is_relative_to(root):
        raise DataError(f"{name}: leads out of the run folder")
    return real


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."


def _fail(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})")
