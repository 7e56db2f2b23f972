"""Reads files that anyone may have written or a disk may have damaged.

Checked are kind of file, size, encoding, depth, types and ranges; every fault is one `DataError` that names the file.
"""

import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from mlxlab.errors import DataError, InputNotFoundError
from mlxlab.files.shape import ShapeError, validate

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 32
MAX_INTEGER = 2**64 - 1  # seeds are unsigned

T = TypeVar("T")


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Opens a regular file for reading. Symbolic links, folders, pipes, sockets and devices are refused, unopened or
    without blocking.

    Raises:
        InputNotFoundError: there is no such file.
        DataError: it is no regular file, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputNotFoundError(f"{path}: not found") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DataError(f"{path}: cannot be opened as a regular file ({_reason(error)})") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: expected a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({_reason(error)})") from None
    finally:
        os.close(descriptor)


def read_bytes(path: Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """The contents of a regular file; raises as `open_regular`, and DataError if it is larger than `max_bytes`."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(min(max_bytes, size) + 1)  # no more memory than the file can fill
    if len(data) > max_bytes:
        raise DataError(f"{path}: larger than {max_bytes} bytes")
    return data


def read_text(path: Path, *, max_bytes: int = MAX_BYTES) -> str:
    """`read_bytes` as UTF-8."""
    try:
        return read_bytes(path, max_bytes=max_bytes).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 (byte {error.start})") from None


def read_json(path: Path, shape: type[T], *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> T:
    """A JSON file as `shape`: a `TypedDict`, or any type that `mlxlab.files.shape.validate` knows.

    Raises:
        InputNotFoundError: there is no such file.
        DataError: it is malformed, too large, too deep, or not of that shape.
    """
    return parse_json(read_text(path, max_bytes=max_bytes), shape, str(path), max_depth=max_depth)


def parse_json(text: str, shape: type[T], name: str, *, max_depth: int = MAX_DEPTH, allow_nan: bool = False) -> T:
    """A JSON document as `shape`. Numbers are finite and fit 64 bits, text holds no lone surrogates, no key twice.

    Args:
        allow_nan: accept NaN and infinities, as Python's `json` writes them.

    Raises:
        DataError: the document, called `name` in the message, is anything else.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys)
        _check(value, max_depth, allow_nan)
        result: T = validate(value, shape)
        return result
    except ShapeError as error:
        raise DataError(f"{name}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not valid JSON ({str(error)[:100]})") from None


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key is defined twice in one object")
    return result


def _check(value: object, levels: int, allow_nan: bool) -> None:
    """Checks depth, numbers and text."""
    match value:
        case dict() | list():
            if levels == 0:
                raise ShapeError("", "nested too deep")
            for item in [*value, *value.values()] if isinstance(value, dict) else value:
                _check(item, levels - 1, allow_nan)
        case int() if abs(value) > MAX_INTEGER:
            raise ShapeError("", "expected integers of at most 64 bits")
        case float() if not (allow_nan or math.isfinite(value)):
            raise ShapeError("", "expected finite numbers")
        case str() if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ShapeError("", "text with a lone surrogate") from None


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
