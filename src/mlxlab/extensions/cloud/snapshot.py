"""Files as they are at one moment, for an upload that continues while others change them."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mlxlab.extensions.cloud.object_store import CHUNK, StorageError

Version = tuple[int, int, int]  # inode, size, time of the last change


class FileEntry(NamedTuple):
    """The first `size` bytes of a file and their SHA-256: more may be appended meanwhile.

    Args:
        descriptor: of a file that may be removed meanwhile.
    """

    path: Path
    size: int
    sha256: str
    descriptor: int | None

    def chunks(self) -> Iterator[bytes]:
        """Yields the bytes; StorageError if they are not those of the snapshot any more."""
        digest = hashlib.sha256()
        descriptor = self.descriptor
        try:
            if descriptor is None:
                descriptor = _open(self.path)
            for chunk in _read(descriptor, self.size):
                digest.update(chunk)
                yield chunk
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from None
        finally:
            if self.descriptor is None and descriptor is not None:
                os.close(descriptor)
        if digest.hexdigest() != self.sha256:
            raise StorageError(f"{self.path}: changed while it was uploaded")


class Snapshots:
    """Takes snapshots; a file is hashed again only if it changed.

    Args:
        on_progress: called for each chunk that is hashed.
    """

    def __init__(self, on_progress: Callable[[], None] = lambda: None) -> None:
        self._on_progress = on_progress
        self._digests: dict[Path, tuple[Version, str]] = {}

    def take(self, path: Path, *, held: bool) -> FileEntry:
        """A file as it is now; OSError if it cannot be read.

        Args:
            held: keep it open until `release`, to be read after it was removed or replaced.
        """
        descriptor = _open(path)
        entry = None
        try:
            status = os.fstat(descriptor)
            version = (status.st_ino, status.st_size, status.st_mtime_ns)
            known, digest = self._digests.get(path, (None, ""))
            if known != version:
                digest = self._sha256(descriptor, status.st_size)
                self._digests[path] = version, digest
            entry = FileEntry(path, status.st_size, digest, descriptor if held else None)
        finally:
            if entry is None or not held:
                os.close(descriptor)
        return entry

    def _sha256(self, descriptor: int, size: int) -> str:
        digest = hashlib.sha256()
        for chunk in _read(descriptor, size):
            digest.update(chunk)
            self._on_progress()
        return digest.hexdigest()


def release(files: dict[str, FileEntry]) -> None:
    """Closes the files that a snapshot holds."""
    for file in files.values():
        if file.descriptor is not None:
            with suppress(OSError):
                os.close(file.descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _read(descriptor: int, size: int) -> Iterator[bytes]:
    offset = 0
    while offset < size and (chunk := os.pread(descriptor, min(CHUNK, size - offset), offset)):
        offset += len(chunk)
        yield chunk
