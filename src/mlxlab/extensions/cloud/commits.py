"""Sets of files in an object store, each committed as a whole: files first, its manifest last.

    <root>/step-00000120.json      the manifest: which files belong to the commit, with their SHA-256
    <root>/files/<SHA-256>         the contents, each stored once for all commits

What is not named by a manifest does not exist for a reader, so a killed upload continues with the
files that are missing. A reader hashes every file.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, TypedDict

from annotated_types import Ge, Le, Predicate

from mlxlab.errors import CannotCreateError, DataError
from mlxlab.extensions.cloud.object_store import (
    ObjectStore,
    is_safe_key,
    join,
    read_object,
    retried,
)
from mlxlab.extensions.cloud.snapshot import FileEntry
from mlxlab.files.atomic import open_atomic
from mlxlab.files.untrusted import parse_json

SUFFIX = ".json"
FILES = "files"
SUPERSEDED = "superseded-"
MAX_MANIFEST = 16 * 2**20


def is_sha256(text: str) -> bool:
    """64 hexadecimal digits"""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


class StoredFile(TypedDict):
    """Size and digest of one file."""

    size: Annotated[int, Ge(0), Le(2**50)]
    sha256: Annotated[str, Predicate(is_sha256)]


class Manifest(TypedDict):
    """A commit: its files by path, relative to the folder."""

    format: Literal[2]
    name: str
    files: dict[str, StoredFile]


class Commits:
    """The commits below `root` in a store.

    Methods raise StorageError; what is read is checked, and raises DataError.
    """

    def __init__(self, store: ObjectStore, root: str) -> None:
        self.store = store
        self.root = root
        self.address = f"{store.address}/{root}"
        self._manifests: dict[str, Manifest] = {}  # by name
        self._reached: dict[str, int] = {}  # by digest the bytes that were sent so far

    def names(self) -> list[str]:
        """The names of the commits, sorted, without those that are superseded."""
        return [name for name in self._all_names() if not name.startswith(SUPERSEDED)]

    def read(self, name: str) -> Manifest:
        """The manifest of a commit, which may come from anyone."""
        if name not in self._manifests:
            data = read_object(self.store, self._manifest_key(name), MAX_MANIFEST)
            self._manifests[name] = _parsed(data, name, f"{self.address}/{name}{SUFFIX}")
        return self._manifests[name]

    def commit(
        self,
        name: str,
        files: Mapping[str, FileEntry],
        on_progress: Callable[[], None] = lambda: None,
    ) -> int:
        """Stores files, then the manifest that names them; returns the bytes sent.

        Args:
            on_progress: called for each chunk that is sent for the first time.
        """
        stored = self.store.list(join(self.root, FILES)).sizes
        sent = 0
        for file in sorted(files.values(), key=lambda file: file.size):
            key = self._file_key(file.sha256)
            if stored.get(key) != file.size:
                self.store.put(key, self._watched(file, on_progress))
                stored[key] = file.size
                sent += file.size
        entries = {
            path: StoredFile(size=each.size, sha256=each.sha256) for path, each in files.items()
        }
        self._write(name, entries)
        return sent

    def supersede(self, names: Iterable[str]) -> None:
        """Renames commits that do not lead to what the run is now. Their files stay."""
        for name in names:
            with suppress(DataError):  # Nobody can fetch a damaged one.
                files = self.read(name)["files"]
                self._write(f"{SUPERSEDED}{name}-{secrets.token_hex(2)}", files)
            self._remove(name)

    def retain(self, names: Collection[str]) -> None:
        """Removes all other commits but those that are superseded, and files that none names."""
        used: set[str] = set()
        for name in self._all_names():
            if name not in names and not name.startswith(SUPERSEDED):
                self._remove(name)
                continue
            with suppress(DataError):  # Nobody can fetch a damaged one.
                used |= {file["sha256"] for file in self.read(name)["files"].values()}
        stored = {key.rpartition("/")[2] for key in self.store.list(join(self.root, FILES)).sizes}
        for sha256 in stored - used:
            self.store.delete(self._file_key(sha256))

    def fetch(self, name: str, folder: Path) -> None:
        """The files of a commit, verified, into a folder.

        Raises:
            DataError: a file is not what the manifest says.
            CannotCreateError: there is no room for them.
        """
        files = self.read(name)["files"]
        folder.mkdir(parents=True, exist_ok=True)
        need = sum(file["size"] for file in files.values())
        free = shutil.disk_usage(folder).free
        if need > free:
            raise CannotCreateError(
                f"{folder}: {need / 1e6:.0f} MB to fetch, {free / 1e6:.0f} MB are free"
            )
        for path, file in files.items():
            retried(partial(self._fetch_file, file, folder / path))

    def _fetch_file(self, file: StoredFile, path: Path) -> None:
        key = self._file_key(file["sha256"])
        digest = hashlib.sha256()
        size = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_atomic(path, durable=True) as target:
            for chunk in self.store.get(key):
                size += len(chunk)
                if size > file["size"]:
                    break
                digest.update(chunk)
                target.write(chunk)
            if size != file["size"] or digest.hexdigest() != file["sha256"]:
                raise DataError(f"{self.store.address}/{key}: is not what is in its manifest")

    def _watched(self, file: FileEntry, on_progress: Callable[[], None]) -> Iterator[bytes]:
        offset = 0
        for chunk in file.chunks():
            offset += len(chunk)
            if offset > self._reached.get(file.sha256, 0):
                self._reached[file.sha256] = offset
                on_progress()
            yield chunk

    def _write(self, name: str, files: dict[str, StoredFile]) -> None:
        manifest = Manifest(format=2, name=name, files=dict(sorted(files.items())))
        self.store.put(self._manifest_key(name), [json.dumps(manifest, indent=1).encode()])
        self._manifests[name] = manifest

    def _remove(self, name: str) -> None:
        self._manifests.pop(name, None)
        self.store.delete(self._manifest_key(name))

    def _all_names(self) -> list[str]:
        keys = [key.removeprefix(f"{self.root}/") for key in self.store.list(self.root).sizes]
        manifests = [key for key in keys if key.endswith(SUFFIX) and is_safe_key(key)]
        return sorted(key.removesuffix(SUFFIX) for key in manifests)

    def _manifest_key(self, name: str) -> str:
        return join(self.root, name + SUFFIX)

    def _file_key(self, sha256: str) -> str:
        return join(self.root, FILES, sha256)


def _parsed(data: bytes, name: str, title: str) -> Manifest:
    """A manifest, whose paths stay in the folder of the reader."""
    manifest = parse_json(data.decode("utf-8", "replace"), Manifest, title)
    if manifest["name"] != name:
        raise DataError(f"{title}: is the manifest of {manifest['name'][:60]!r}")
    files = manifest["files"]
    folders = {str(folder) for path in files for folder in PurePosixPath(path).parents}
    for path in files:
        if not is_safe_key(path) or path in folders:
            raise DataError(f"{title}: expected relative paths of plain names, got {path[:60]!r}")
    return manifest
