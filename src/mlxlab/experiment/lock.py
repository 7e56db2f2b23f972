"""Lock of a run folder: one process at a time. It is released when its process ends, so no stale lock remains."""

import errno
import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

from mlxlab.errors import CannotCreateError

NAME = ".lock"


class RunLock:
    """Held from `acquire` to `release`, or until the process ends."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._file: int | None = None

    def acquire(self) -> None:
        """Locks the folder for this process; raises CannotCreateError naming the process that holds it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise CannotCreateError(f"{self.path.parent}: cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.release()
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise CannotCreateError(f"{self.path}: cannot be locked ({error.strerror})") from None
            raise CannotCreateError(f"{self.path.parent}: in use by {self._owner()}") from None
        with suppress(OSError):  # only for messages: the lock holds without the name of its owner
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def _owner(self) -> str:
        with suppress(OSError):
            return self.path.read_bytes()[:200].decode(errors="replace").strip() or "another process"
        return "another process"

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
