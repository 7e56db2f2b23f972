"""Locks between processes: files that the kernel unlocks when their process ends."""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Locks a file, which is created unless it exists; yields False if another process holds it.

    Raises OSError, at once, if it is a symbolic link, a pipe or a device.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, _FLAGS, 0o644)
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
