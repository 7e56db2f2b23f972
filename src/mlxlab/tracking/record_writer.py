"""Appends to `journal.jsonl`. What was written survives `kill -9`, a full disk and a torn last line."""

import fcntl
import json
import mmap
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from mlxlab.errors import CannotCreateError, WriteError
from mlxlab.files.atomic import fsync, remove_leftovers, temporary_name
from mlxlab.files.untrusted import open_regular

MAX_WAITING = 64 * 2**20  # bytes of lines in memory while the disk refuses them

_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


class RecordWriter:
    """Appends to the journal `path`. An incomplete last line is removed first; `torn` is the number of its bytes.

    One `os.write` per line on an O_APPEND descriptor: once it has returned, the line outlives the process. The file is
    locked (`flock`) while it is open, so that a reader can tell whether its writer is alive.

    Raises:
        CannotCreateError: the file cannot be opened, or another process is writing it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting = b""  # refused by the disk so far; goes out before anything newer
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent)
            self._file = _open_locked(path)
            self.torn = _remove_torn_line(self._file)
        except OSError as error:
            raise CannotCreateError(f"cannot write {path}: {error.strerror}") from None

    def write(self, record: Mapping[str, object]) -> str | None:
        """Appends a record; returns the reason if it has to wait in memory, else None."""
        data = self.waiting + f"{_encode(record)}\n".encode()
        try:
            written = os.write(self._file, data)
        except OSError as error:
            if len(data) <= MAX_WAITING:
                self.waiting = data
            return error.strerror or str(error)
        self.waiting = data[written:]  # the rest of a line that fitted only in part
        return "no space left" if self.waiting else None

    def truncate_after(self, step: int) -> None:
        """Overwrites metrics of later steps by `{}` and spaces and appends a record of it, in one atomic step.

        The length stays, so that the offsets of all other lines stay valid. Raises WriteError.
        """
        note = _encode({"t": time.time_ns() // 1_000_000, "truncate_after": step})
        try:
            lines = self.path.read_bytes().splitlines(keepends=True)
            rewritten = [
                b"{}".ljust(len(line) - 1) + b"\n" if _step(line) > step else line for line in lines
            ]
            if rewritten != lines:
                self._replace(b"".join(rewritten) + f"{note}\n".encode())
        except OSError as error:
            raise WriteError(
                f"{self.path}: cannot be written ({error.strerror or error})"
            ) from None

    def close(self) -> None:
        os.close(self._file)

    def _replace(self, data: bytes) -> None:
        # Not `write_atomic`: locked before it takes the name, so that at no instant does the writer look dead.
        temporary = temporary_name(self.path)
        file = _open_locked(temporary)
        try:
            with open(file, "wb", closefd=False) as out:
                out.write(data)
            fsync(file)
            os.replace(temporary, self.path)
        except OSError:
            os.close(file)
            temporary.unlink()
            raise
        os.close(self._file)
        self._file = file


def has_writer(path: Path) -> bool:
    """True if a living process holds `path` open for appending."""
    with open_regular(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def _open_locked(path: Path) -> int:
    file = os.open(
        path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644
    )
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise CannotCreateError(f"{path}: expected a regular file")
    for _ in range(50):  # `has_writer` holds the lock for an instant
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(0.01)
    os.close(file)
    raise CannotCreateError(f"another process is writing {path}")


def _remove_torn_line(file: int) -> int:
    """Removes what follows the last newline; returns its length in bytes."""
    size = os.fstat(file).st_size
    if not size:
        return 0
    with mmap.mmap(file, size, access=mmap.ACCESS_READ) as data:
        end = data.rfind(b"\n") + 1
    os.ftruncate(file, end)
    return size - end


def _step(line: bytes) -> int:
    """The step of a line of metrics; -1 of any other line."""
    try:
        return int(json.loads(line).get("s", -1))
    except (
        ValueError,
        RecursionError,
        AttributeError,
        TypeError,
    ):  # damaged: the upload reports it
        return -1
