"""A folder as an object store: a network drive, or a disk that another program backs up."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.extensions.cloud.object_store import CHUNK, Listing, ObjectNotFoundError, StorageError
from mlxlab.files.atomic import open_atomic, remove_leftovers
from mlxlab.files.untrusted import open_regular


class DirectoryStore:
    """An `ObjectStore` of the files below `root`, which is made when something is stored."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = root.as_uri()

    def put(self, key: str, chunks: Iterable[bytes]) -> None:
        path = self.root / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent)
            with open_atomic(path, durable=True) as file:
                for chunk in chunks:
                    file.write(chunk)
        except OSError as error:
            raise _explained(path, error) from None

    def get(self, key: str) -> Iterator[bytes]:
        try:
            with open_regular(self.root / key) as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except InputNotFoundError:
            raise ObjectNotFoundError(f"{self.root / key}: not found") from None
        except DataError as error:
            raise StorageError(str(error)) from None

    def head(self, key: str) -> int:
        try:
            with open_regular(self.root / key) as file:
                return os.fstat(file.fileno()).st_size
        except InputNotFoundError:
            raise ObjectNotFoundError(f"{self.root / key}: not found") from None
        except DataError as error:
            raise StorageError(str(error)) from None

    def list(self, folder: str) -> Listing:
        listing = Listing({}, [])
        try:
            with suppress(FileNotFoundError):
                for entry in os.scandir(self.root / folder):
                    key = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        listing.folders.append(key)
                    elif entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                        listing.sizes[key] = entry.stat().st_size
        except OSError as error:
            raise _explained(self.root / folder, error) from None
        return listing

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            try:
                (self.root / key).unlink(missing_ok=True)
            except OSError as error:
                raise _explained(self.root / key, error) from None


def _explained(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path}: {error.strerror or error}")
