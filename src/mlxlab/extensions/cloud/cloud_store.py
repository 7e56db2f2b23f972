"""Object stores of S3, Google Cloud Storage and Azure, by obstore (extra `cloud`)."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from mlxlab.extensions.cloud.object_store import (
    CHUNK,
    AnswerCutError,
    Listing,
    ObjectNotFoundError,
    StorageError,
    join,
    retried,
)

if TYPE_CHECKING:
    from obstore.store import ObjectStore as ObstoreStore

RETRY = {  # of one request, within obstore; uploads are tried again for as long as the run lasts
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=5),
        "base": 2,
    },
}
CLIENT = {
    "timeout": timedelta(seconds=120),
    "connect_timeout": timedelta(seconds=5),
    "allow_http": True,  # An endpoint with http:// is what the user typed.
}
KINDS = {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}  # classes of obstore
PARALLEL_PARTS = 4  # of an object, in transfer at once

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


class CloudStore:
    """An `ObjectStore` of one bucket or container.

    Args:
        options: of obstore, which reads all others, and the credentials, from the environment.
    """

    def __init__(self, scheme: str, bucket: str, options: dict[str, str]) -> None:
        self.address = f"{scheme}://{bucket}"
        self.kind = KINDS[scheme]
        self.bucket = bucket
        self.options = options

    @cached_property
    def _store(self) -> "ObstoreStore":
        from obstore import store

        kind: Any = getattr(store, self.kind)
        with _explained(self.address):
            opened: ObstoreStore = kind(
                self.bucket, client_options=CLIENT, retry_config=RETRY, **self.options
            )
            return opened

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
        return retried(partial(self._list, folder))

    def _list(self, folder: str) -> Listing:
        import obstore

        with _explained(join(self.address, folder)):
            result = obstore.list_with_delimiter(self._store, folder or None)
        sizes = {each["path"]: each["size"] for each in result["objects"]}
        return Listing(sizes, list(result["common_prefixes"]))

    def delete(self, key: str) -> None:
        import obstore

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
