"""Appends to `journal.jsonl`. What was written survives `kill -9`, a full disk and a torn last line."""

import fcntl
import json
import mmap
import os
import stat
import time
from pathlib import Path

from mlxlab.errors import CannotCreateError

MAX_WAITING = 64 * 2**20  # bytes of lines in memory while the disk refuses them
LOCK_ATTEMPTS = 50  # `has_writer` holds the lock for an instant

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


class RecordWriter:
    """Appends to the journal `path`. An incomplete last line is removed first.

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
            self._file = os.open(path, _FLAGS, 0o644)
            self._lock()
            self._remove_torn_line()
        except OSError as error:
            raise CannotCreateError(f"cannot write {path}: {error.strerror}") from None

    def write(self, **record: object) -> str | None:
        """Appends a record with its time; returns the reason if it has to wait in memory, else None."""
        line = _encode({"t": time.time_ns() // 1_000_000, **record})
        data = self.waiting + f"{line}\n".encode()
        try:
            written = os.write(self._file, data)
        except OSError as error:
            if len(data) <= MAX_WAITING:
                self.waiting = data
            return error.strerror
        self.waiting = data[written:]  # the rest of a line that fitted only in part
        return "no space left" if self.waiting else None

    def close(self) -> None:
        os.close(self._file)

    def _lock(self) -> None:
        is_regular = stat.S_ISREG(os.fstat(self._file).st_mode)
        for _ in range(LOCK_ATTEMPTS if is_regular else 0):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                time.sleep(0.01)
        os.close(self._file)
        fault = "another process is writing it" if is_regular else "expected a regular file"
        raise CannotCreateError(f"{self.path}: {fault}")

    def _remove_torn_line(self) -> None:
        """Removes what follows the last newline."""
        size = os.fstat(self._file).st_size
        if not size:
            return
        with mmap.mmap(self._file, size, access=mmap.ACCESS_READ) as data:
            end = data.rfind(b"\n") + 1
        os.ftruncate(self._file, end)
