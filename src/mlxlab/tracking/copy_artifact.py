"""Copies files out of a run folder that anyone may have written."""

import os
import shutil
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.untrusted import open_regular
from mlxlab.terminal.wording import one_line

MAX_NAME = 200  # characters of a path in a message
MAX_PATH = 1024  # bytes of a path within the run folder: it is longer in the store


def copy_artifact(folder: Path, name: str, target: Path) -> Path:
    """Copies the file or folder `name` of the run folder into the folder `target`; returns the copy.

    At most half of what is free on the disk of `target` is copied: a file with holes may be of any size.

    Only regular files inside the run folder are read: no path leads out of it, be it absolute, through `..` or through
    a symbolic link, and no pipe, socket or device is opened. Raises UserError if there is nothing to read, and OSError
    if `target` cannot be written.
    """
    root = Path(os.path.realpath(folder))
    source = _resolve(root, root / name)
    paths = [source]
    for parent, folders, names in os.walk(source, onerror=_fail) if source.is_dir() else ():
        paths += [Path(parent, entry) for entry in (*folders, *names)]
    originals = [_resolve(root, path) for path in paths]
    target.mkdir(exist_ok=True)
    size = sum(original.stat().st_size for original in originals)
    limit = shutil.disk_usage(target).free // 2
    if size > limit:
        fault = f"{size} bytes, more than half of what is free on the disk ({limit} bytes)"
        raise DataError(f"{one_line(name, MAX_NAME)}: {fault}")
    for path, original in zip(paths, originals, strict=True):
        copy = target / path.relative_to(source.parent)
        if original.is_dir():
            copy.mkdir()
            continue
        with open_regular(original) as file, copy.open("wb") as output:
            shutil.copyfileobj(file, output, 2**20)
    return target / source.name


def _resolve(root: Path, path: Path) -> Path:
    relative = os.path.relpath(path, root)
    name = one_line(relative, MAX_NAME)
    try:
        real = Path(os.path.realpath(path, strict=True))
    except FileNotFoundError:
        raise InputNotFoundError(f"{name}: not found") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DataError(f"{name}: cannot be read ({getattr(error, 'strerror', error)})") from None
    if real == root or not real.is_relative_to(root):
        raise DataError(f"{name}: leads out of the run folder")
    if len(os.fsencode(relative)) > MAX_PATH:
        raise DataError(f"{name}: a path of more than {MAX_PATH} bytes")
    return real


def _fail(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror})")
