"""One process per run folder. The lock dies with its process: nothing stale is left."""

import fcntl
import os
import socket
from pathlib import Path

from mlxlab.errors import CannotCreateError

NAME = ".lock"


class RunLock:
    """Held from `acquire` to `release`, or to the death of the process."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._file: int | None = None

    def acquire(self) -> None:
        """Takes the folder for this process; raises CannotCreateError naming the one that has it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise CannotCreateError(f"{self.path.parent}: cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(self._file, 200, 0).decode(errors="replace").strip() or "another process"
            os.close(self._file)
            self._file = None
            raise CannotCreateError(f"{self.path.parent}: in use by {owner}") from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
