"""An append-only file of JSON lines that survives `kill -9`, a full disk and a torn last line.

One `os.write` per line on an O_APPEND descriptor: once `write` has returned, the line outlives the process. The file is
locked (`flock`) while it is open, so that a reader can tell whether its writer is alive.
"""

import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mlxlab.errors import CannotCreateError
from mlxlab.files.atomic import fsync, remove_leftovers, temporary_name
from mlxlab.files.untrusted import open_regular

MAX_WAITING = 64 * 2**20  # bytes kept in memory while the disk refuses them

_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


class JsonlAppender:
    """Appends to `path`. A torn last line is cut first; `torn` says how many bytes it had.

    Raises:
        CannotCreateError: the file cannot be opened, or another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting = b""  # refused by the disk so far; goes out before anything newer
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent)
            self._file = _open(path)
            self.torn = _cut_torn(self._file)
        except OSError as error:
            raise CannotCreateError(f"cannot write {path}: {error.strerror}") from None

    def write(self, record: Mapping[str, object]) -> str | None:
        """Appends one line; returns the reason if it has to wait in memory, else None."""
        return self.append((_encode(record) + "\n").encode())

    def append(self, data: bytes) -> str | None:
        """`write` for a line that is encoded already, newline and all."""
        if self.waiting:
            data = self.waiting + data
        try:
            done = os.write(self._file, data)
        except OSError as error:
            if len(data) <= MAX_WAITING:
                self.waiting = data
            return error.strerror or str(error)
        self.waiting = data[done:]  # the rest of a line that fitted only in part
        return "no space left" if self.waiting else None

    def blank(self, unwanted: Callable[[dict[str, Any]], bool], note: Mapping[str, object]) -> int:
        """Overwrites unwanted lines by `{}` and spaces and appends `note`, in one atomic step; returns how many.

        The length stays, so that the offsets of all other lines stay valid. Nothing happens if no line is unwanted.
        """
        lines = self.path.read_bytes().splitlines(keepends=True)
        blanked = [_empty(line) if unwanted(_parse(line)) else line for line in lines]
        count = sum(old is not new for old, new in zip(lines, blanked, strict=True))
        if count:
            self._replace(b"".join(blanked) + (_encode(note) + "\n").encode())
        return count

    def close(self) -> None:
        os.close(self._file)

    def _replace(self, data: bytes) -> None:
        # Not `write_atomic`: locked before it takes the name, so that at no instant does the writer look dead.
        temporary = temporary_name(self.path)
        file = _open(temporary)
        try:
            with open(file, "wb", closefd=False) as out:
                out.write(data)
            fsync(file)
            os.replace(temporary, self.path)
        except BaseException:
            os.close(file)
            temporary.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file = file


def has_writer(path: Path) -> bool:
    """Whether a living process holds `path` open for appending."""
    with open_regular(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _open(path: Path) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise CannotCreateError(f"{path}: expected a regular file")
    # A reader that asks `has_writer` holds the lock for an instant.
    for _ in range(50):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(0.01)
    os.close(file)
    raise CannotCreateError(f"another process is writing {path}")


def _cut_torn(file: int) -> int:
    size = os.fstat(file).st_size
    offset, tail = size, b""
    while offset and b"\n" not in tail:
        start = max(0, offset - 2**16)
        tail = os.pread(file, offset - start, start) + tail
        offset = start
    torn = len(tail) - (tail.rfind(b"\n") + 1)
    if torn:
        os.ftruncate(file, size - torn)
    return torn


def _parse(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _empty(line: bytes) -> bytes:
    return b"{}".ljust(len(line) - 1) + b"\n"
