"""Reads and checks files that anyone may have written or a disk may have damaged; every fault is one `DataError`."""

import base64
import functools
import json
import math
import os
import stat
import types
import typing
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    BinaryIO,
    Literal,
    NotRequired,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from mlxlab.errors import DataError, InputNotFoundError, NotAllowedError
from mlxlab.schema.constraints import Predicate, satisfies

MAX_BYTES = 16 * 2**20
MAX_DEPTH = 32
MAX_INTEGER = 2**64 - 1  # seeds are unsigned

T = TypeVar("T")

_type_hints = functools.cache(functools.partial(typing.get_type_hints, include_extras=True))


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Opens a regular file for reading; InputNotFoundError if there is none.

    Raises DataError for symbolic links, folders, pipes and devices, without blocking, and for what cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputNotFoundError(f"{path}: not found") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise DataError(f"{path}: cannot be opened as a regular file ({error.args[-1]})") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: expected a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    finally:
        os.close(descriptor)


def refuse_links(folder: Path) -> None:
    """NotAllowedError for a symbolic link inside a folder: what is written there would follow it out of the folder.

    Call it before anything is written. Pipes and devices are refused as well, since they may block.
    """
    pending = [str(folder)]
    while pending:
        with suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                elif not entry.is_file(follow_symlinks=False) and os.path.lexists(entry.path):
                    kind = "a symbolic link" if entry.is_symlink() else "no regular file"
                    raise NotAllowedError(
                        f"{entry.path}: {kind} inside a folder that anyone may have written"
                    )


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


def read_json(
    path: Path,
    shape: type[T],
    *,
    keys: Collection[str] | None = None,
    max_bytes: int = MAX_BYTES,
) -> T:
    """A JSON file as `shape`, any type that `validate` knows; raises as `read_text` and `parse_json`."""
    return parse_json(read_text(path, max_bytes=max_bytes), shape, str(path), keys=keys)


def parse_json(
    text: str,
    shape: type[T],
    name: str,
    *,
    keys: Collection[str] | None = None,
    max_depth: int = MAX_DEPTH,
    allow_nan: bool = False,
) -> T:
    """A JSON document as `shape`. Numbers are finite and fit 64 bits, text holds no lone surrogates, no key twice.

    Args:
        keys: the keys of the document that are read; other programs may store anything under others. None reads all.
        allow_nan: accept NaN and infinities, as Python's `json` writes them.

    Raises:
        DataError: the document, called `name` in the message, is anything else.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys)
        if keys is not None and isinstance(value, dict):
            value = {key: item for key, item in value.items() if key in keys}
        _check(value, max_depth, allow_nan)
        result: T = validate(value, shape)
        return result
    except ShapeError as error:
        raise DataError(f"{name}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: not valid JSON ({str(error)[:100]})") from None


def unpack_bytes(text: str, size: int, name: str) -> bytes:
    """The `size` bytes that `atomic.pack_bytes` made a text of; DataError, naming `name`, if it holds anything else."""
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(
            base64.b64decode(text, validate=True), size + 1
        )  # no more memory than expected
    except (ValueError, zlib.error) as error:
        raise DataError(f"{name}: not compressed bytes in base64 ({str(error)[:80]})") from None
    if len(data) != size or not inflate.eof or inflate.unused_data:
        raise DataError(
            f"{name}: expected {size} compressed bytes, got {min(len(data), size + 1)} or more"
        )
    return data


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


class ShapeError(ValueError):
    """A value is not of the expected shape. `path` leads to it: `history[3].step`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path


def validate(value: Any, shape: Any, path: str = "") -> Any:
    """`value`, if it is of `shape`, else ShapeError; a list becomes a tuple where the shape says so.

    Shapes are `Any` and `object` (anything), `None`, `bool`, `int`, `float` (an int will do), `str`, `Literal`,
    unions, `list[T]`, `tuple[T, ...]`, `tuple[A, B]`, `dict[str, T]`, `TypedDict` and dataclasses (unknown keys are
    refused; every field of a dataclass is required), and `Annotated` with the bounds of `annotated_types`.
    """
    origin = get_origin(shape)
    args = get_args(shape)
    if shape is Any or shape is object:
        return value
    if origin in (Annotated, NotRequired, Required):
        return _validate_bounds(value, args, path)
    if origin in (Union, types.UnionType):
        return _validate_union(value, args, path)
    if origin is Literal:
        return _validate_literal(value, args, path)
    if typing.is_typeddict(shape):
        return _validate_fields(value, shape, path)
    if isinstance(shape, type) and is_dataclass(shape):
        return shape(**_validate_fields(value, shape, path))
    if type(value) is int and shape is float:
        return value
    _check_type(value, shape, path)
    if origin is dict:
        return {key: validate(item, args[1], _join(path, key)) for key, item in value.items()}
    if origin in (list, tuple):
        shapes = args[:1] * len(value) if origin is list or args[1:] == (...,) else args
        return origin(_validate_items(value, shapes, path))
    return value


def _check_type(value: object, shape: Any, path: str) -> None:
    origin = get_origin(shape)
    kind: Any = list if origin is tuple else origin or shape or type(None)
    if type(value) is not kind:
        raise _mismatch(path, "null" if shape is None else kind.__name__, value)


def _validate_bounds(value: object, args: tuple[Any, ...], path: str) -> object:
    result = validate(value, args[0], path)
    for bound in args[1:]:
        if not satisfies(result, bound):
            words = bound.func.__doc__ if isinstance(bound, Predicate) else bound
            raise _mismatch(path, str(words), value)
    return result


def _validate_literal(value: object, options: tuple[object, ...], path: str) -> object:
    if not any(value == option and type(value) is type(option) for option in options):
        raise _mismatch(path, f"one of {', '.join(map(repr, options))}", value)
    return value


def _validate_items(value: list[Any], shapes: tuple[Any, ...], path: str) -> list[object]:
    if len(value) != len(shapes):
        raise ShapeError(path, f"expected {len(shapes)} items, got {len(value)}")
    return [validate(item, shapes[n], f"{path}[{n}]") for n, item in enumerate(value)]


def _validate_union(value: object, options: tuple[object, ...], path: str) -> object:
    errors = []
    for option in options:
        try:
            return validate(value, option, path)
        except ShapeError as error:
            errors.append(error)
    raise max(errors, key=lambda error: len(error.path))  # the option that agreed the furthest


def _validate_fields(value: object, shape: Any, path: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _mismatch(path, "dict", value)
    fields = _type_hints(shape)
    required = shape.__required_keys__ if typing.is_typeddict(shape) else fields.keys()
    if missing := sorted(required - value.keys()):
        raise ShapeError(path, f"{missing[0]!r} is missing")
    if unknown := sorted(value.keys() - fields.keys()):
        raise ShapeError(path, f"unknown key {unknown[0][:40]!r}")
    return {key: validate(item, fields[key], _join(path, key)) for key, item in value.items()}


def _mismatch(path: str, expected: str, value: object) -> ShapeError:
    return ShapeError(path, f"expected {expected}, got {repr(value)[:60]}")


def _join(path: str, key: str) -> str:
    return f"{path}.{key[:40]}" if path else key[:40]
