"""Files as they are at one moment, for an upload that continues while others write, replace or remove them."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mlxlab.extensions.cloud.object_store import CHUNK, StorageError

Version = tuple[int, int, int]  # inode, size, time of the last change


class FileEntry(NamedTuple):
    """The first `size` bytes of a file, which have the SHA-256 digest: more may be appended meanwhile."""

    path: Path
    size: int
    sha256: str
    descriptor: int | None  # of a file that may be removed meanwhile

    def chunks(self) -> Iterator[bytes]:
        """Its bytes; StorageError if they are not those of the snapshot any more."""
        digest = hashlib.sha256()
        try:
            for chunk in _read(self.path, self.size, self.descriptor):
                digest.update(chunk)
                yield chunk
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror or error}") from None
        if digest.hexdigest() != self.sha256:
            raise StorageError(f"{self.path}: changed while it was uploaded")


class Snapshots:
    """Takes snapshots; a file is hashed again only if it changed. `on_progress` is called while that takes time."""

    def __init__(self, on_progress: Callable[[], None] = lambda: None) -> None:
        self._on_progress = on_progress
        self._digests: dict[Path, tuple[Version, str]] = {}

    def take(self, path: Path, *, held: bool) -> FileEntry:
        """A file as it is now; OSError if it cannot be read.

        Args:
            held: keep it open until `release`, so that it can be read after it was removed or replaced.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            version = (status.st_ino, status.st_size, status.st_mtime_ns)
            known, digest = self._digests.get(path, (None, ""))
            if known != version:
                digest = self._sha256(path, status.st_size, descriptor)
                self._digests[path] = version, digest
        except BaseException:
            os.close(descriptor)
            raise
        if not held:
            os.close(descriptor)
        return FileEntry(path, status.st_size, digest, descriptor if held else None)

    def _sha256(self, path: Path, size: int, descriptor: int) -> str:
        digest = hashlib.sha256()
        for chunk in _read(path, size, descriptor):
            digest.update(chunk)
            self._on_progress()
        return digest.hexdigest()


def release(files: dict[str, FileEntry]) -> None:
    """Closes the files that a snapshot holds."""
    for file in files.values():
        if file.descriptor is not None:
            with suppress(OSError):
                os.close(file.descriptor)


def _read(path: Path, size: int, descriptor: int | None) -> Iterator[bytes]:
    own = (
        os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        if descriptor is None
        else descriptor
    )
    try:
        offset = 0
        while offset < size and (chunk := os.pread(own, min(CHUNK, size - offset), offset)):
            offset += len(chunk)
            yield chunk
    finally:
        if descriptor is None:
            os.close(own)
