"""Files that can be made again, keyed by all they depend on: a changed input is another file, never a stale hit.

A file is 64 bytes, the digest and the size of the rest, then the content. Its name must hold the key of
the content.
"""

import hashlib
import json
import logging
import mmap
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

import xxhash

from mlxlab.errors import DataError, InputNotFoundError, WriteError
from mlxlab.files.atomic import open_atomic, remove_leftovers
from mlxlab.files.untrusted import open_regular

HEADER_BYTES = 64
BLOCK = 2**24

T = TypeVar("T")
log = logging.getLogger(__name__)


def content_key(**content: object) -> str:
    """32 hex digits of some JSON values and their names."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def cached(
    path: Path,
    write: Callable[[BinaryIO], None],
    read: Callable[[mmap.mmap], T],
) -> tuple[T, str]:
    """What is read from a cache file, or from a new one; and `hit` or `miss`.

    Concurrent processes may do this: each writes a file of its own and renames it. A damaged file is built again with
    a warning; where none can be written, a temporary file takes its place.

    Args:
        write: writes the content behind the header.
        read: gets the file with its header, whose digest was checked. Raises DataError unless `write` could have
            written the content: a right digest proves no origin.

    Raises:
        WriteError: there is no space for a temporary file either.
    """
    try:
        with open_regular(path) as file:
            return read(_map(file, path.name)), "hit"
    except InputNotFoundError:
        pass
    except DataError as error:
        # The name of the file is left out: it is a digest, and there is nothing to do about it.
        cause = str(error).removeprefix(f"{path}: ")
        log.warning("a cached file is corrupt (%s); it is built again", cause)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        with open_atomic(path) as file:
            return read(_fill(file, path.name, write)), "miss"
    except OSError as error:
        log.warning("the cache in %s could not be written (%s)", path.parent, error)
    try:
        with tempfile.TemporaryFile() as file:
            return read(_fill(file, path.name, write)), "miss"
    except OSError as error:
        folder = tempfile.gettempdir()
        raise WriteError(f"{folder}: no temporary file could be written ({error})") from None


def _fill(file: BinaryIO, name: str, write: Callable[[BinaryIO], None]) -> mmap.mmap:
    """Writes a new file, and maps it."""
    file.write(bytes(HEADER_BYTES))
    write(file)
    file.flush()
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    file.seek(0)
    file.write(_header(data, name))
    file.flush()
    return data


def _map(file: BinaryIO, name: str) -> mmap.mmap:
    size = os.fstat(file.fileno()).st_size
    if size <= HEADER_BYTES:
        raise DataError(f"{size} bytes")
    with suppress(OSError):  # Some file systems do not know holes.
        if os.lseek(file.fileno(), 0, os.SEEK_HOLE) < size:
            raise DataError("it has holes")
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header = data[:HEADER_BYTES]
    # The size is compared first: a file of another one is not read.
    has_size = header.rstrip(b"\0").endswith(b" %d" % size)
    if not has_size or _header(data, name) != header:
        raise DataError("its size or digest differs")
    return data


def _header(data: mmap.mmap, name: str) -> bytes:
    digest = xxhash.xxh3_128(name.encode())
    for start in range(HEADER_BYTES, len(data), BLOCK):
        digest.update(data[start : start + BLOCK])
        data.madvise(mmap.MADV_DONTNEED)  # Pages that were read are given back at once.
    return f"mlxlab {digest.hexdigest()} {len(data)}".encode().ljust(HEADER_BYTES, b"\0")
