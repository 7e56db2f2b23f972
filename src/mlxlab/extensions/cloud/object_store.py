"""The interface of an object store: objects under keys, each visible as a whole or not at all."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from mlxlab.errors import ServiceUnavailableError

CHUNK = 8 * 2**20  # bytes read or written at once
MAX_NAMES = 12  # names in a key
NAME = re.compile(r"[\w+=@,][\w .+=@,-]{0,199}")


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


def read_object(store: ObjectStore, key: str, max_bytes: int) -> bytes:
    """A small object; raises as `ObjectStore.get`, and StorageError if it is larger."""
    data = bytearray()
    for chunk in store.get(key):
        data += chunk
        if len(data) > max_bytes:
            raise StorageError(f"{store.address}/{key}: larger than {max_bytes} bytes")
    return bytes(data)
