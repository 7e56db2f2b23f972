"""Files that can be made again, keyed by all they depend on: a changed input is another file, never a stale hit."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.atomic import write_atomic
from mlxlab.files.untrusted import parse_json, read_bytes

MAX_BYTES = 2**32
DIGEST_BYTES = 32

T = TypeVar("T")
log = logging.getLogger(__name__)


def content_key(**content: object) -> str:
    """32 hex digits of some JSON values and their names."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def cached(
    path: Path,
    build: Callable[[], T],
    encode: Callable[[T], bytes],
    decode: Callable[[bytes], T],
    *,
    read: bool = True,
) -> tuple[T, str]:
    """The content of a cache file, or new content that is cached; and `hit`, `miss` or `corrupt, built again`.

    Concurrent processes may do this: each writes a file of its own and renames it. A damaged file is built again with
    a warning; a folder that cannot be written costs a warning, never the run.

    Args:
        path: its name must hold the key of the content.
        decode: raises DataError unless `build` could have returned the content: a right digest proves no origin.
        read: False builds the content even if it is cached.
    """
    outcome = "miss"
    if read:
        try:
            return decode(_read_body(path)), "hit"
        except InputNotFoundError:
            pass
        except DataError as error:
            warn_of_damage(path, error)
            outcome = "corrupt, built again"
    content = build()
    body = encode(content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, _digest(path, body) + body)
    except OSError as error:
        warn_of_unwritten(path, error)
        outcome += ", not cached"
    return content, outcome


def cached_json(
    path: Path,
    shape: type[T],
    build: Callable[[], T],
    check: Callable[[T], object],
    *,
    read: bool = True,
) -> tuple[T, bool]:
    """`cached` JSON of a shape, and True if it was read.

    Args:
        check: raises DataError for content that `build` cannot have returned.
    """

    def encode(content: T) -> bytes:
        return json.dumps(content).encode()

    def decode(data: bytes) -> T:
        content = parse_json(data.decode("utf-8", "replace"), shape, path.name, max_depth=64)
        check(content)
        return content

    content, outcome = cached(path, build, encode, decode, read=read)
    return content, outcome == "hit"


def warn_of_damage(path: Path, error: DataError) -> None:
    """The name of the file is left out: it is a digest, and there is nothing to do about it."""
    cause = str(error).removeprefix(f"{path}: ")
    log.warning("a cached file is corrupt (%s); it is built again", cause)


def warn_of_unwritten(path: Path, error: OSError) -> None:
    log.warning("the cache in %s could not be written (%s)", path.parent, error.strerror or error)


def describe_tokens(outcome: str) -> str:
    """How the tokens of a data set came about, by the outcome of `cached`."""
    if outcome == "hit":
        return "tokens read from the cache"
    again = " again, because the cache was corrupt" if outcome.startswith("corrupt") else ""
    return f"tokenized{again}, {'not' if outcome.endswith('not cached') else 'and'} cached"


def _read_body(path: Path) -> bytes:
    data = read_bytes(path, max_bytes=MAX_BYTES)
    body = data[DIGEST_BYTES:]
    if data[:DIGEST_BYTES] != _digest(path, body):
        raise DataError("the digest differs")
    return body


def _digest(path: Path, body: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + b"\0" + body).digest()
