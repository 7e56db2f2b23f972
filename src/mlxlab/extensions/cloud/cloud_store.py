"""Object stores of S3, Google Cloud Storage and Azure, by obstore (extra `cloud`)."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

from mlxlab.extensions.cloud.object_store import (
    CHUNK,
    Listing,
    ObjectNotFoundError,
    StorageError,
    join,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore as ObstoreStore

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


class AnswerCutError(StorageError):
    """The connection was cut before the end of an answer."""


class CloudStore:
    """An `ObjectStore` of one bucket or container.

    Args:
        address: for messages, `s3://bucket`.
        open_store: makes obstore's object, which reads the credentials from the environment.
    """

    def __init__(self, address: str, open_store: "Callable[[], ObstoreStore]") -> None:
        self.address = address
        self._open_store = open_store

    @cached_property
    def _store(self) -> "ObstoreStore":
        with _explained(self.address):
            return self._open_store()

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
