"""What must reach the disk: files, folders, and their removal."""

import fcntl
import os
import secrets
import shutil
from pathlib import Path


def flush(descriptor: int) -> None:
    """fsync; on a Mac also the drive's own cache."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def flush_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Writes a new file and flushes it."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        flush(file.fileno())


def remove(folder: Path) -> None:
    """Removes a folder so that no reader sees half of it: renamed first."""
    doomed = folder.with_name(f".del-{folder.name}-{secrets.token_hex(4)}")
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
