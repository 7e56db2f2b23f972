"""The files of a run folder from which its run can be resumed elsewhere, as they are at one moment."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from mlxlab.checkpoint.manifest import MANIFEST, CorruptCheckpointError, read_manifest
from mlxlab.checkpoint.names import (
    EMERGENCY,
    FOLDER,
    NAME,
    REPLACED,
    committed_paths,
    folder_name,
    step_of,
)
from mlxlab.errors import CheckpointUnavailableError
from mlxlab.extensions.cloud.object_store import CHUNK, StorageError, is_safe_key

BASE = "base"
# What a run writes at the top; nothing else is copied, for a run folder may be any folder.
FILES = (
    r"(run|resume_changes|transfer|verify)\.json|journal(-[0-9a-f]{32})?\.jsonl"
    r"|(metrics|mistakes)\.csv|summary\.md|run\.lock|out_of_fold\.safetensors"
)
LOSSES = "example_losses"  # The folder may hold many files, which are never replaced.
WHOLE = "inference"  # The folder also holds what a data set of the user's own saves.


class RunFiles:
    """The checkpoints of a run folder: each with all that a resume needs, and the best one.

    Args:
        table: the file of `callbacks.csv`, if there is one.
    """

    def __init__(self, folder: Path, table: Path | None = None) -> None:
        self.folder = folder
        self.table = table

    def names(self) -> list[str]:
        """The names of the checkpoints, the newest first."""
        names = [path.name for path in committed_paths(self.folder / FOLDER)]
        return list(filter(is_checkpoint, names))

    def mark(self, name: str) -> str:
        """The path of a file that differs in every checkpoint of that name."""
        return f"{FOLDER}/{name}/{MANIFEST}"

    def files(self, name: str) -> tuple[list[str], list[str]]:
        """Paths of files that may be removed or replaced at any time, and of others.

        OSError if the checkpoint is gone.
        """
        checkpoints = {name, self._best(name)} & {*self.names(), name}
        folders = [f"{FOLDER}/{checkpoint}" for checkpoint in sorted(checkpoints)]
        if (self.folder / BASE).is_dir():
            folders.append(BASE)
        held: list[str] = []
        for folder in folders:
            names = sorted(os.listdir(self.folder / folder))
            held += [f"{folder}/{each}" for each in names if is_safe_key(each)]
        replaced = [*(self.folder / WHOLE).rglob("*"), *self._matches("", FILES)]
        if self.table is not None:
            replaced.append(self.table)
        return held + self._keys(replaced), self._keys(self._matches(LOSSES, r"\d{9,}\.arrows"))

    def retained(self, names: Sequence[str], keep: int | None) -> list[str]:
        """The newest regular ones; an emergency checkpoint until there is a newer regular one."""
        ordered = sorted(names, key=order, reverse=True)
        regular = [name for name in ordered if EMERGENCY not in name]
        kept = {*regular[:keep]}
        for name in ordered:
            if name in regular:
                break
            kept.add(name)
        return [name for name in ordered if name in kept]

    def superseded(self, names: Sequence[str]) -> list[str]:
        """Selects the names that do not lead to the newest checkpoint of the folder."""
        newest = max((order(name)[0] for name in self.names()), default=-1)
        return [name for name in names if not is_checkpoint(name) or order(name)[0] > newest]

    def _best(self, name: str) -> str:
        try:
            return folder_name(read_manifest(self.folder / FOLDER / name)["best_step"])
        except (CorruptCheckpointError, CheckpointUnavailableError):
            return ""

    def _matches(self, folder: str, pattern: str) -> list[Path]:
        paths = (self.folder / folder).glob("*")
        return [path for path in paths if re.fullmatch(pattern, path.name, re.ASCII)]

    def _keys(self, paths: Sequence[Path]) -> list[str]:
        """The safe ones among the paths of regular files, relative to the folder."""
        keys = [os.path.relpath(path, self.folder) for path in paths if is_regular(path)]
        return sorted(filter(is_safe_key, keys))


def is_checkpoint(name: str) -> bool:
    return NAME.fullmatch(name) is not None and REPLACED not in name


def is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def order(name: str) -> tuple[int, bool]:
    """Orders checkpoints by name, the newest last; the regular one of a step after the other."""
    return step_of(Path(name)), EMERGENCY not in name


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
