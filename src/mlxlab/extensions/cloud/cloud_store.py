"""Object stores of S3, Google Cloud Storage and Azure, by obstore (extra `cloud`)."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
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

RETRY = {  # of one request, within obstore; the upload as a whole is tried again for as long as the run lasts
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=5),
        "base": 2,
    },
}
CLIENT = {"timeout": timedelta(seconds=120), "connect_timeout": timedelta(seconds=5)}
PARALLEL_PARTS = 4  # of an object, in transfer at once
ATTEMPTS = (
    5  # of a listing: obstore repeats requests, but not those whose answer is cut in the middle
)

_STATUS = re.compile(r"status code: (\d{3}(?: [A-Z][A-Za-z ]{2,40})?)|<Code>(\w{1,60})</Code>")
_KIND = re.compile(r"kind: (Connect|Timeout|Request|Decode|Interrupted)\b")
CUT = "the connection was cut"
_REASONS = {
    "FileNotFoundError": "not found",
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
        self.address, self._open_store = address, open_store

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
            else:
                parts = chain([first, second], chunks)
                obstore.put(
                    self._store, key, parts, chunk_size=CHUNK, max_concurrency=PARALLEL_PARTS
                )

    def get(self, key: str) -> Iterator[bytes]:
        import obstore

        with _explained(join(self.address, key)):
            for chunk in obstore.get(self._store, key).stream(min_chunk_size=CHUNK):
                yield bytes(chunk)

    def head(self, key: str) -> int:
        import obstore

        with _explained(join(self.address, key)):
            return obstore.head(self._store, key)["size"]

    def list(self, folder: str) -> Listing:
        import obstore

        for attempt in range(ATTEMPTS):
            try:
                with _explained(join(self.address, folder)):
                    result = obstore.list_with_delimiter(self._store, folder or None)
                    break
            except AnswerCutError:
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(0.1 * 2**attempt)
        return Listing(
            {each["path"]: each["size"] for each in result["objects"]},
            list(result["common_prefixes"]),
        )

    def delete(self, keys: Sequence[str]) -> None:
        import obstore

        for key in keys:
            try:
                with _explained(join(self.address, key)):
                    obstore.delete(self._store, key)
            except ObjectNotFoundError:
                continue


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Errors of obstore as StorageError. Their own text may hold a signed URL or a key, so none of it is passed on."""
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError:
        raise ObjectNotFoundError(f"{address}: not found") from None
    except Exception as error:  # obstore also raises ValueError and TypeError
        reason = _reason(error)
        kind = AnswerCutError if reason == CUT else StorageError
        raise kind(f"{address}: {reason}") from None


def _reason(error: Exception) -> str:
    text, name = str(error), type(error).__name__
    if name in _REASONS:
        return _REASONS[name]
    if status := _STATUS.search(text):
        return f"the service answers {status[1] or status[2]}"
    if kinds := _KIND.findall(text):
        return _REASONS[kinds[0]]
    if "redential" in text or "Missing" in text:
        return "no usable credentials in the environment (see docs/how_to/cloud.md)"
    return f"failed ({name})"
