"""Writes a file or a folder whole or not at all: a temporary one in the same folder, then one rename.

A lock keeps processes apart that write the same: the kernel unlocks the file when its process ends.
"""

import base64
import errno
import fcntl
import json
import math
import os
import re
import secrets
import shutil
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from mlxlab.errors import CannotCreateError

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | Mapping[str, object] | None"

_PREFIX = ".tmp-"
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def write_atomic(path: Path, data: bytes | str, *, durable: bool = False) -> None:
    """Replaces `path` by `data` (text as UTF-8); a reader sees the old file or the new one, never a part.

    Args:
        durable: survives a power failure: file and folder are flushed to the disk. Not for what can be made again.

    Raises:
        OSError: the file cannot be written; the old one is untouched and nothing is left behind.
    """
    with open_atomic(path, durable=durable) as file:
        file.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def open_atomic(path: Path, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A new file that replaces `path` when the `with` block ends; an error in it removes the file. Raises OSError."""
    temporary = temporary_name(path)
    try:
        with temporary.open("x+b") as file:
            yield file
            if durable:
                file.flush()
                fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        fsync_folder(path.parent)


def temporary_name(path: Path) -> Path:
    """A new name in the folder of `path`, in the form that `leftovers` recognises."""
    return path.with_name(f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}-{path.name[:100]}")


def write_json(path: Path, value: Json, *, indent: int | None = 1, durable: bool = False) -> None:
    """`write_atomic` of a JSON document. NaN and infinities are refused: no strict reader accepts them."""
    write_atomic(path, json.dumps(value, indent=indent, allow_nan=False) + "\n", durable=durable)


def without_nonfinite(value: object) -> Any:
    """A JSON value with null for NaN and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: without_nonfinite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nonfinite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def pack_bytes(data: bytes) -> str:
    """Compressed bytes as text, for a few large values within JSON; `untrusted.unpack_bytes` reads them."""
    return base64.b64encode(zlib.compress(data)).decode()


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files of processes that were killed while they wrote; those of living ones stay."""
    for path in leftovers(folder):
        with suppress(OSError):
            path.unlink()


def leftovers(folder: Path) -> Iterator[Path]:
    """Temporary names of processes that are gone."""
    for path in folder.glob(f"{_PREFIX}*"):
        process = path.name.removeprefix(_PREFIX).split("-")[0]
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            yield path
        except (PermissionError, OverflowError, ValueError):  # another user's, or no process id
            continue


def fsync(descriptor: int) -> None:
    """Flushes a file to the disk; on a Mac the drive's own cache too."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def fsync_folder(folder: Path) -> None:
    """Flushes the entries of a folder (created, renamed and removed names) to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)


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
    own = re.compile(rf"\.tmp-\d+-[0-9a-f]{{8}}-{re.escape(path.name[:100])}")
    for leftover in leftovers(path.parent):
        if own.fullmatch(leftover.name):
            shutil.rmtree(leftover, ignore_errors=True)
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


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Locks a file, which is created unless it exists; yields False if another process holds it.

    Raises OSError, at once, if it is a symbolic link, a pipe or a device.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, _LOCK_FLAGS, 0o644)
    is_free = True
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "expected a regular file", str(path))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_free = False
        yield is_free
    finally:
        os.close(file)
