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
    """The first `size` bytes of an open file and their SHA-256: more may be appended meanwhile.

    It can be read after it was removed or replaced, until `close`.
    """

    path: Path
    size: int
    sha256: str
    descriptor: int

    def chunks(self) -> Iterator[bytes]:
        """Its bytes; StorageError if they are not those of the snapshot any more."""
        digest = hashlib.sha256()
        for chunk in _read(self.descriptor, self.size):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != self.sha256:
            raise StorageError(f"{self.path}: changed while it was uploaded")

    def close(self) -> None:
        with suppress(OSError):
            os.close(self.descriptor)


class Snapshots:
    """Takes snapshots; a file is hashed again only if it changed.

    Args:
        on_progress: called for each chunk that is hashed.
    """

    def __init__(self, on_progress: Callable[[], None] = lambda: None) -> None:
        self._on_progress = on_progress
        self._digests: dict[Path, tuple[Version, str]] = {}

    def take(self, path: Path) -> FileEntry:
        """A file as it is now; OSError if it cannot be read."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            version = (status.st_ino, status.st_size, status.st_mtime_ns)
            known, digest = self._digests.get(path, (None, ""))
            if known != version:
                digest = self._sha256(descriptor, status.st_size)
                self._digests[path] = version, digest
        except BaseException:
            os.close(descriptor)
            raise
        return FileEntry(path, status.st_size, digest, descriptor)

    def digest(self, path: Path) -> str:
        """The SHA-256 of a file; "" if it cannot be read."""
        try:
            file = self.take(path)
        except OSError:
            return ""
        file.close()
        return file.sha256

    def _sha256(self, descriptor: int, size: int) -> str:
        digest = hashlib.sha256()
        for chunk in _read(descriptor, size):
            digest.update(chunk)
            self._on_progress()
        return digest.hexdigest()


def _read(descriptor: int, size: int) -> Iterator[bytes]:
    offset = 0
    while offset < size and (chunk := os.pread(descriptor, min(CHUNK, size - offset), offset)):
        offset += len(chunk)
        yield chunk
