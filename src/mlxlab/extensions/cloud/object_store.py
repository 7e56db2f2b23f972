"""Object stores: objects under keys, each visible as a whole or not at all.

A store is a folder, or a bucket of S3, Google Cloud Storage or Azure by obstore (extra `cloud`).
"""

import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mlxlab.errors import DataError, InputNotFoundError, ServiceUnavailableError
from mlxlab.files.atomic import open_atomic, remove_leftovers
from mlxlab.files.untrusted import open_regular

CHUNK = 8 * 2**20  # bytes read or written at once
MAX_NAMES = 12  # names in a key
NAME = re.compile(r"[\w+=@,][\w .+=@,-]{0,199}")
KINDS = {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}  # classes of obstore
RETRY = {  # obstore's for one request; uploads are tried again for as long as the run lasts
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=5),
        "base": 2,
    },
}
CLIENT = {"timeout": timedelta(seconds=120), "connect_timeout": timedelta(seconds=5)}
PARALLEL_PARTS = 4  # parts of an object in transfer at once
ATTEMPTS = 5  # tries of a listing: obstore does not repeat one whose answer is cut in the middle

STATUS = re.compile(r"status code: (\d{3}(?: [A-Z][A-Za-z ]{2,40})?)|<Code>(\w{1,60})</Code>")
KIND = re.compile(r"kind: (Connect|Timeout|Request|Decode|Interrupted)\b")
CUT = "the connection was cut"
REASONS = {
    "PermissionDeniedError": "permission denied",
    "UnauthenticatedError": "the credentials in the environment are not accepted",
    "InvalidPathError": "holds keys that are no paths",
    "Connect": "cannot be reached",
    "Timeout": "timed out",
    "Request": CUT,
    "Interrupted": CUT,
    "Decode": CUT,
}


class StorageError(ServiceUnavailableError):
    """A request to an object store failed.

    The message holds no address of the request, which may have a secret.
    """


class ObjectNotFoundError(StorageError):
    """There is no object under that key."""


class Listing(NamedTuple):
    """What is directly in a folder: sizes in bytes of the objects by key, and keys of folders."""

    sizes: dict[str, int]
    folders: list[str]


class ObjectStore(Protocol):
    """Objects of one bucket, container or folder; every method raises StorageError.

    Keys are as `is_safe_key` says. `address` is for messages: `s3://bucket`.
    """

    address: str

    def put(self, key: str, chunks: Iterable[bytes]) -> None:
        """Stores an object, or replaces it; readers see the old one until all is there."""

    def get(self, key: str) -> Iterator[bytes]:
        """The contents in chunks. Raises ObjectNotFoundError."""

    def list(self, folder: str) -> Listing:
        """What is directly in a folder, "" for the whole store; empty if there is no such folder."""

    def delete(self, keys: Sequence[str]) -> None:
        """Removes objects; those that do not exist are ignored."""


def is_safe_key(key: str) -> bool:
    """True for a relative path of at most 12 plain names, which stays in its folder."""
    names = key.split("/")
    return len(names) <= MAX_NAMES and all(map(NAME.fullmatch, names))


def join(*parts: str) -> str:
    """The key of some parts, of which the first may be empty."""
    return "/".join(filter(None, parts))


class DirectoryStore:
    """An `ObjectStore` of the files below `root`, which is made when something is stored."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = root.as_uri()

    def put(self, key: str, chunks: Iterable[bytes]) -> None:
        path = self.root / key
        with _explained_os(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(path.parent)
            with open_atomic(path, durable=True) as file:
                for chunk in chunks:
                    file.write(chunk)

    def get(self, key: str) -> Iterator[bytes]:
        with _explained_os(self.root / key), open_regular(self.root / key) as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def list(self, folder: str) -> Listing:
        path = self.root / folder
        listing = Listing({}, [])
        with _explained_os(path):
            for entry in os.scandir(path) if path.exists() else ():
                key = join(folder, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    listing.folders.append(key)
                elif entry.is_file(follow_symlinks=False) and not entry.name.startswith("."):
                    listing.sizes[key] = entry.stat().st_size
        return listing

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            with _explained_os(self.root / key):
                (self.root / key).unlink(missing_ok=True)


@contextmanager
def _explained_os(path: Path) -> Iterator[None]:
    """Turns errors into a StorageError that names the path."""
    try:
        yield
    except InputNotFoundError:
        raise ObjectNotFoundError(f"{path}: not found") from None
    except DataError as error:
        raise StorageError(str(error)) from None
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from None


class AnswerCutError(StorageError):
    """The connection was cut before the end of an answer."""


class CloudStore:
    """An `ObjectStore` of one bucket or container; connects when it is first used.

    Args:
        scheme: s3, gs or az.
        options: of obstore's class, which reads the credentials from the environment.
    """

    def __init__(
        self, scheme: str, bucket: str, options: dict[str, Any], *, allow_http: bool
    ) -> None:
        self.address = f"{scheme}://{bucket}"
        self._scheme = scheme
        self._bucket = bucket
        self._options = options
        self._client: dict[str, Any] = dict(CLIENT)
        if allow_http:
            self._client["allow_http"] = True

    @cached_property
    def _store(self) -> Any:
        from obstore import store

        kind = getattr(store, KINDS[self._scheme])
        with _explained(self.address):
            return kind(
                self._bucket, client_options=self._client, retry_config=RETRY, **self._options
            )

    def put(self, key: str, chunks: Iterable[bytes]) -> None:
        import obstore

        chunks = iter(chunks)
        first = next(chunks, b"")
        second = next(chunks, None)
        with _explained(join(self.address, key)):
            if second is None:
                obstore.put(self._store, key, first, use_multipart=False)
                return
            parts = chain([first, second], chunks)
            obstore.put(self._store, key, parts, chunk_size=CHUNK, max_concurrency=PARALLEL_PARTS)

    def get(self, key: str) -> Iterator[bytes]:
        import obstore

        with _explained(join(self.address, key)):
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=CHUNK):
                yield bytes(chunk)

    def list(self, folder: str) -> Listing:
        for attempt in range(ATTEMPTS - 1):
            with suppress(AnswerCutError):
                return self._list(folder)
            time.sleep(0.1 * 2**attempt)
        return self._list(folder)

    def _list(self, folder: str) -> Listing:
        import obstore

        with _explained(join(self.address, folder)):
            result = obstore.list_with_delimiter(self._store, folder or None)
        sizes = {each["path"]: each["size"] for each in result["objects"]}
        return Listing(sizes, list(result["common_prefixes"]))

    def delete(self, keys: Sequence[str]) -> None:
        import obstore

        for key in keys:
            with suppress(ObjectNotFoundError), _explained(join(self.address, key)):
                obstore.delete(self._store, key)


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Errors of obstore as StorageError, without their text: it may hold a signed URL or a key."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError:
        raise ObjectNotFoundError(f"{address}: not found") from None
    except Exception as error:  # Errors of obstore include ValueError and TypeError.
        reason = _reason(error)
        kind = AnswerCutError if reason == CUT else StorageError
        raise kind(f"{address}: {reason}") from None


def _reason(error: Exception) -> str:
    text = str(error)
    name = type(error).__name__
    if name in REASONS:
        return REASONS[name]
    if status := STATUS.search(text):
        return f"the service answers {status[1] or status[2]}"
    if kind := KIND.search(text):
        return REASONS[kind[1]]
    if "redential" in text or "Missing" in text:
        return "no usable credentials in the environment (see docs/how_to/cloud.md)"
    return f"failed ({name})"
