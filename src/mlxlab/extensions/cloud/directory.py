"""A folder as an object store: a network drive, or a disk that another program backs up."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.extensions.cloud.object_store import (
    CHUNK,
    Listing,
    ObjectNotFoundError,
    StorageError,
    join,
)
from mlxlab.files.atomic import open_atomic, remove_leftovers
from mlxlab.files.untrusted import open_regular


class DirectoryStore:
    """An `ObjectStore` of the files below `root`, which is made when something is stored."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = root.as_uri()

    def put(self, key: str, chunks: Iterable[bytes]) -> None:
        path = self.root / key
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent)
            with open_atomic(path, durable=True) as file:
                for chunk in chunks:
                    file.write(chunk)

    def get(self, key: str) -> Iterator[bytes]:
        with _explained(self.root / key), open_regular(self.root / key) as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def list(self, folder: str) -> Listing:
        path = self.root / folder
        listing = Listing({}, [])
        with _explained(path):
            for entry in os.scandir(path) if path.exists() else ():
                key = join(folder, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    listing.folders.append(key)
                elif entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                    listing.sizes[key] = entry.stat().st_size
        return listing

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            with _explained(self.root / key):
                (self.root / key).unlink(missing_ok=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns errors into a StorageError that names the path."""
    try:
        yield
    except InputNotFoundError:
        raise ObjectNotFoundError(f"{path}: not found") from None
    except DataError as error:
        raise StorageError(str(error)) from None
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from None
