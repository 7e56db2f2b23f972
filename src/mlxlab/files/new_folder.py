"""Creates folders; one that holds the result of a command as a whole or not at all."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlxlab.errors import CannotCreateError
from mlxlab.files.atomic import leftovers, temporary_name


def make_folder(folder: Path) -> None:
    """Makes the folder of a run or sweep, or raises CannotCreateError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{error.filename}: {error.strerror or error}; the run folder cannot be created"
        raise CannotCreateError(message) from None


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder next to `path`, which it becomes at the end; raises as `refuse_existing`, and OSError.

    Those that killed processes left for the same path are removed.
    """
    refuse_existing(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = temporary_name(path)
    try:
        temporary.mkdir()
        yield temporary
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def refuse_existing(path: Path) -> None:
    """CannotCreateError if there is anything at this path."""
    if os.path.lexists(path):
        raise CannotCreateError(f"out={path}: exists already; expected the name of a new one")


def _remove_leftovers(path: Path) -> None:
    own = re.compile(rf"\.tmp-\d+-[0-9a-f]{{8}}-{re.escape(path.name[:100])}")
    for leftover in leftovers(path.parent):
        if own.fullmatch(leftover.name):
            shutil.rmtree(leftover, ignore_errors=True)
