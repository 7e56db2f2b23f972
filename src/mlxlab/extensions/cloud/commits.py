"""Sets of files in an object store, each committed as a whole: files first, its manifest last.

    <root>/step-00000120.json      the manifest: which files belong to the commit, with their SHA-256
    <root>/files/<SHA-256>         the contents, each stored once for all commits

What is not named by a manifest does not exist for a reader. An object is read back and hashed
before it counts as stored, so a killed upload continues with the files that are missing.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, TypedDict

from annotated_types import Ge, Le, Predicate

from mlxlab.errors import CannotCreateError, DataError
from mlxlab.extensions.cloud.object_store import (
    CHUNK,
    ObjectStore,
    StorageError,
    is_safe_key,
    join,
)
from mlxlab.extensions.cloud.run_files import FileEntry
from mlxlab.files.atomic import open_atomic
from mlxlab.files.untrusted import open_regular, parse_json

SUFFIX = ".json"
FILES = "files"
SUPERSEDED = "superseded"
MAX_MANIFEST = 16 * 2**20
MAX_FILES = 100_000


def is_sha256(text: str) -> bool:
    """64 hexadecimal digits"""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


class StoredFile(TypedDict):
    """Size and digest of one file."""

    size: Annotated[int, Ge(0), Le(2**50)]
    sha256: Annotated[str, Predicate(is_sha256)]


class Manifest(TypedDict):
    """A commit: its files by path, relative to the folder; `checksum` is of all other fields."""

    format: Literal[1]
    name: str
    files: dict[str, StoredFile]
    checksum: str


class Commits:
    """The commits below `root` in a store.

    Methods raise StorageError; what is read is checked, and raises DataError.

    Args:
        read_back: whether a file that was sent is read again and hashed.
    """

    def __init__(self, store: ObjectStore, root: str, *, read_back: bool = True) -> None:
        self.store = store
        self.root = root
        self.read_back = read_back
        self.address = f"{store.address}/{root}"
        self._manifests: dict[str, Manifest] = {}  # name -> manifest
        self._verified: set[str] = set()  # digests of objects that were read back
        self._reached: dict[str, int] = {}  # digest -> bytes that were sent so far

    def names(self) -> list[str]:
        """The names of the commits, sorted."""
        return self._names(self.root)

    def read(self, name: str) -> Manifest:
        """The manifest of a commit, which may come from anyone."""
        if name not in self._manifests:
            self._manifests[name] = _parsed(self._read(name), name, f"{self.address}/{name}.json")
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
            key = self._key(file.sha256)
            if stored.get(key) == file.size and self._is_intact(file.sha256):
                continue
            self.store.put(key, self._watched(file, on_progress))
            stored[key] = file.size
            sent += file.size
            if not self._is_intact(file.sha256):
                self._refuse_stored(key)
        entries = {
            path: StoredFile(size=each.size, sha256=each.sha256) for path, each in files.items()
        }
        self._write(name, entries)
        return sent

    def supersede(self, names: Iterable[str]) -> None:
        """Moves manifests of commits that do not lead to what the run is now. Files stay."""
        for name in names:
            aside = f"{name}-{secrets.token_hex(2)}{SUFFIX}"
            self.store.put(join(self.root, SUPERSEDED, aside), [self._read(name)])
            self._remove(name)

    def retain(self, names: Iterable[str]) -> None:
        """Removes all other commits, and files that no commit names."""
        for name in set(self.names()) - set(names):
            self._remove(name)
        manifests = [self.read(name) for name in self.names()]
        for name in self._names(join(self.root, SUPERSEDED)):
            with suppress(DataError):  # Nobody can fetch a damaged one.
                manifests.append(_parsed(self._read(join(SUPERSEDED, name)), None, name))
        used = {file["sha256"] for manifest in manifests for file in manifest["files"].values()}
        stored = {key.rpartition("/")[2] for key in self.store.list(join(self.root, FILES)).sizes}
        self.store.delete([self._key(sha256) for sha256 in sorted(stored - used)])
        self._verified &= used

    def fetch(self, name: str, folder: Path) -> None:
        """The files of a commit, verified, into a folder; those that it has are not fetched again.

        Raises:
            DataError: a file is not what the manifest says, or there is no room for it.
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
            if not _is_file(folder / path, file):
                self._fetch_file(file, folder / path)

    def _fetch_file(self, file: StoredFile, path: Path) -> None:
        key = self._key(file["sha256"])
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
        fields = {"format": 1, "name": name, "files": dict(sorted(files.items()))}
        data = json.dumps(fields | {"checksum": _checksum(fields)}, indent=1).encode()
        self._manifests.pop(name, None)
        self.store.put(join(self.root, name + SUFFIX), [data])
        if self._read(name) != data:
            self._refuse_stored(join(self.root, name + SUFFIX))

    def _refuse_stored(self, key: str) -> None:
        self.store.delete([key])
        raise StorageError(f"{self.store.address}/{key}: was stored with another checksum")

    def _read(self, name: str) -> bytes:
        key = join(self.root, name + SUFFIX)
        data = bytearray()
        for chunk in self.store.get(key):
            data += chunk
            if len(data) > MAX_MANIFEST:
                raise StorageError(f"{self.store.address}/{key}: larger than {MAX_MANIFEST} bytes")
        return bytes(data)

    def _remove(self, name: str) -> None:
        self._manifests.pop(name, None)
        self.store.delete([join(self.root, name + SUFFIX)])

    def _names(self, folder: str) -> list[str]:
        keys = [key.removeprefix(f"{folder}/") for key in self.store.list(folder).sizes]
        manifests = [key for key in keys if key.endswith(SUFFIX) and is_safe_key(key)]
        return sorted(key.removesuffix(SUFFIX) for key in manifests)

    def _is_intact(self, sha256: str) -> bool:
        """Reads an object once, if objects are read back at all."""
        if self.read_back and sha256 not in self._verified:
            if _sha256(self.store.get(self._key(sha256))) != sha256:
                return False
            self._verified.add(sha256)
        return True

    def _key(self, sha256: str) -> str:
        return join(self.root, FILES, sha256)


def _parsed(data: bytes, name: str | None, title: str) -> Manifest:
    """A manifest of any name for None; its paths stay in the folder of the reader."""
    manifest = parse_json(data.decode("utf-8", "replace"), Manifest, title)
    fields = {key: value for key, value in manifest.items() if key != "checksum"}
    if manifest["checksum"] != _checksum(fields) or manifest["name"] != (name or manifest["name"]):
        raise DataError(f"{title}: has another checksum than when it was written")
    files = manifest["files"]
    if len(files) > MAX_FILES:
        raise DataError(f"{title}: more than {MAX_FILES} files")
    folders = {str(folder) for path in files for folder in PurePosixPath(path).parents}
    for path in files:
        if not is_safe_key(path) or path in folders:
            raise DataError(f"{title}: expected relative paths of plain names, got {path[:60]!r}")
    return manifest


def _checksum(fields: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _is_file(path: Path, expected: StoredFile) -> bool:
    if not path.is_file() or path.stat().st_size != expected["size"]:
        return False
    with open_regular(path) as file:
        return _sha256(iter(partial(file.read, CHUNK), b"")) == expected["sha256"]


def _sha256(chunks: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
