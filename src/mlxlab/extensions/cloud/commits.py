"""Sets of files in an object store, each committed as a whole: its files first, its manifest last.

    <root>/step-00000120.json      the manifest: which files belong to the commit, with size and SHA-256
    <root>/files/<SHA-256>         the contents, each stored once for all commits

What is not named by a manifest does not exist for a reader. An object is read back and hashed before it counts as
stored, so an upload that was killed continues with the files that are missing.
"""

import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
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
    read_object,
)
from mlxlab.extensions.cloud.snapshot import FileEntry
from mlxlab.files.atomic import open_atomic
from mlxlab.files.untrusted import open_regular, parse_json

SUFFIX = ".json"
FILES = "files"
SUPERSEDED = "superseded"
MAX_MANIFEST = 16 * 2**20
MAX_FILES = 100_000


def is_sha256(text: str) -> bool:
    """64 hexadecimal digits"""
    return len(text) == 64 and all(digit in "0123456789abcdef" for digit in text)


class StoredFile(TypedDict):
    """Size and digest of one file."""

    size: Annotated[int, Ge(0), Le(2**50)]
    sha256: Annotated[str, Predicate(is_sha256)]


class Manifest(TypedDict):
    """A commit: its files by their path, relative to the folder; `checksum` is of all other fields."""

    format: Literal[1]
    name: str
    files: dict[str, StoredFile]
    checksum: str


class Commits:
    """The commits below `root` in a store. Methods raise StorageError; what is read is checked, and raises DataError.

    Args:
        read_back: whether a file that was sent is read again and hashed; costs its size in traffic.
    """

    def __init__(self, store: ObjectStore, root: str, *, read_back: bool = True) -> None:
        self.store, self.root, self.read_back = store, root, read_back
        self._manifests: dict[str, Manifest] = {}
        self._verified: set[str] = (
            set()
        )  # digests of objects that were read back, or named by a commit
        self._reached: dict[str, int] = {}  # digest -> offset up to which it was sent so far

    @property
    def address(self) -> str:
        return f"{self.store.address}/{self.root}"

    def names(self) -> list[str]:
        """Of the commits, sorted."""
        return self._names(self.root)

    def read(self, name: str, folder: str = "") -> Manifest:
        """The manifest of a commit. It may come from anyone: its names stay in the folder of the reader."""
        key = join(self.root, folder, name + SUFFIX)
        if key not in self._manifests:
            data = read_object(self.store, key, MAX_MANIFEST)
            self._manifests[key] = _parsed(data, name, f"{self.store.address}/{key}")
        return self._manifests[key]

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
        self._learn_verified()
        stored = self.store.list(join(self.root, FILES)).sizes
        sent = 0
        for file in sorted(files.values(), key=lambda file: file.size):
            key = self._key(file.sha256)
            if stored.get(key) == file.size and (
                file.sha256 in self._verified or self._is_intact(key, file)
            ):
                continue
            self.store.put(key, self._watched(file, on_progress))
            stored[key] = file.size
            sent += file.size
            if self.read_back and not self._is_intact(key, file):
                self.store.delete([key])
                raise StorageError(f"{self.store.address}/{key}: was stored with another checksum")
            self._verified.add(file.sha256)
        self._write(
            name, {path: {"size": file.size, "sha256": file.sha256} for path, file in files.items()}
        )
        return sent

    def supersede(self, names: Iterable[str]) -> None:
        """Moves manifests to another folder: of commits that do not lead to what the run is now. Files stay."""
        for name in names:
            manifest = read_object(self.store, join(self.root, name + SUFFIX), MAX_MANIFEST)
            aside = join(self.root, SUPERSEDED, f"{name}-{secrets.token_hex(2)}{SUFFIX}")
            self.store.put(aside, [manifest])
            self._remove(name)

    def retain(self, names: Iterable[str]) -> None:
        """Removes all other commits, and files that no commit names."""
        for name in set(self.names()) - set(names):
            self._remove(name)
        manifests = [self.read(name) for name in self.names()]
        aside = join(self.root, SUPERSEDED)
        for name in self._names(aside):
            with suppress(DataError):  # damaged: nobody can fetch it
                manifests.append(
                    _parsed(
                        read_object(self.store, f"{aside}/{name}{SUFFIX}", MAX_MANIFEST), None, name
                    )
                )
        used = {
            self._key(file["sha256"])
            for manifest in manifests
            for file in manifest["files"].values()
        }
        unused = set(self.store.list(join(self.root, FILES)).sizes) - used
        self.store.delete(sorted(unused))
        self._verified -= {key.rpartition("/")[2] for key in unused}

    def fetch(self, name: str, folder: Path) -> None:
        """The files of a commit, verified, into a folder; those that are there already are not fetched again.

        Raises:
            DataError: a file is not what the manifest says, or there is no room for it.
        """
        files = self.read(name)["files"]
        need = sum(file["size"] for file in files.values())
        folder.mkdir(parents=True, exist_ok=True)
        if need > (free := shutil.disk_usage(folder).free):
            raise CannotCreateError(
                f"{folder}: {need / 1e6:.0f} MB to fetch, {free / 1e6:.0f} MB are free"
            )
        for path, file in files.items():
            if not _is_file(folder / path, file):
                self._fetch_file(file, folder / path)

    def _fetch_file(self, file: StoredFile, path: Path) -> None:
        address = f"{self.store.address}/{self._key(file['sha256'])}"
        digest, size = hashlib.sha256(), 0
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_atomic(path, durable=True) as target:
            for chunk in self.store.get(self._key(file["sha256"])):
                size += len(chunk)
                if size > file["size"]:
                    raise DataError(
                        f"{address}: larger than the {file['size']} bytes in its manifest"
                    )
                digest.update(chunk)
                target.write(chunk)
            if size != file["size"] or digest.hexdigest() != file["sha256"]:
                raise DataError(
                    f"{address}: {size} bytes with another checksum than in its manifest"
                )

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
        key = join(self.root, name + SUFFIX)
        self._manifests.pop(key, None)
        self.store.put(key, [data])
        if read_object(self.store, key, MAX_MANIFEST) != data:
            self.store.delete([key])
            raise StorageError(f"{self.store.address}/{key}: was stored with another checksum")

    def _remove(self, name: str) -> None:
        key = join(self.root, name + SUFFIX)
        self._manifests.pop(key, None)
        self.store.delete([key])

    def _names(self, folder: str) -> list[str]:
        keys = (key.removeprefix(f"{folder}/") for key in self.store.list(folder).sizes)
        return sorted(
            key.removesuffix(SUFFIX) for key in keys if key.endswith(SUFFIX) and is_safe_key(key)
        )

    def _learn_verified(self) -> None:
        """What earlier commits name was verified before they were made; a damaged one vouches for nothing."""
        if not self._verified:
            for name in self.names():
                with suppress(DataError):
                    self._verified |= {file["sha256"] for file in self.read(name)["files"].values()}

    def _is_intact(self, key: str, file: FileEntry) -> bool:
        digest = hashlib.sha256()
        for chunk in self.store.get(key):
            digest.update(chunk)
        return digest.hexdigest() == file.sha256

    def _key(self, sha256: str) -> str:
        return join(self.root, FILES, sha256)


def _parsed(data: bytes, name: str | None, title: str) -> Manifest:
    try:
        manifest = parse_json(data.decode("utf-8"), Manifest, title)
    except UnicodeDecodeError:
        raise DataError(f"{title}: not UTF-8") from None
    fields = {key: value for key, value in manifest.items() if key != "checksum"}
    if manifest["checksum"] != _checksum(fields) or manifest["name"] != (name or manifest["name"]):
        raise DataError(f"{title}: has another checksum than when it was written")
    if len(manifest["files"]) > MAX_FILES:
        raise DataError(f"{title}: more than {MAX_FILES} files")
    folders = {str(folder) for path in manifest["files"] for folder in PurePosixPath(path).parents}
    for path in manifest["files"]:
        if not is_safe_key(path) or path in folders:
            raise DataError(f"{title}: expected relative paths of plain names, got {path[:60]!r}")
    return manifest


def _checksum(fields: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _is_file(path: Path, expected: StoredFile) -> bool:
    if not path.is_file() or path.stat().st_size != expected["size"]:
        return False
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == expected["sha256"]
