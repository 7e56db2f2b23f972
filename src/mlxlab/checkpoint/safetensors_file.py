"""Reads safetensors files that anyone may have written: the header is checked before MLX sees the file."""

import hashlib
import os
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Annotated, TypedDict, cast

import mlx.core as mx
import numpy as np

from mlxlab.constraints import Count, MaxLen
from mlxlab.errors import DataError
from mlxlab.files.untrusted import ShapeError, open_regular, parse_json, validate

Arrays = dict[str, mx.array]

MAX_HEADER_BYTES = 64 * 2**20
MAX_DIMENSIONS = 8
ITEM_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2}
ITEM_BYTES |= {"U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8}
FLOATS = (mx.float32, mx.float16, mx.bfloat16)


class TensorEntry(TypedDict):
    """One array in the header of a file."""

    dtype: str
    shape: Annotated[list[Count], MaxLen(MAX_DIMENSIONS)]
    data_offsets: tuple[Count, Count]


def read_safetensors(path: Path) -> Arrays:
    """The arrays by name, unevaluated; InputNotFoundError or DataError if the file is not one of safetensors."""
    _check_header(path)
    try:
        return cast(Arrays, mx.load(str(path), format="safetensors"))
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path}: not a valid safetensors file ({str(error).splitlines()[0][:200]})") from None


def evaluate_finite(arrays: Arrays, name: str) -> None:
    """Evaluates now, since arrays are read lazily and files may change; DataError for NaN and infinity."""
    finite = {path: mx.isfinite(array).all() for path, array in arrays.items() if array.dtype in FLOATS}
    try:
        mx.eval(arrays, finite)
    except RuntimeError as error:
        raise DataError(f"{name}: weights cannot be read ({str(error).splitlines()[0][:200]})") from None
    if broken := [path for path, is_finite in finite.items() if not is_finite.item()]:
        more = f" and {len(broken) - 1} more arrays" if len(broken) > 1 else ""
        raise DataError(f"{name}: damaged weights: {broken[0]}{more} holds NaN or infinity")


def digest(arrays: Arrays) -> str:
    """SHA-256 of names, types, shapes and bytes."""
    result = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        result.update(f"{name} {array.dtype} {array.shape}".encode())
        result.update(np.array(array.reshape(-1).view(mx.uint8)).tobytes())
    return result.hexdigest()


def _check_header(path: Path) -> None:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise DataError(f"{path}: not a valid safetensors file (a header of {length} bytes in a file of {size})")
        text = file.read(length).decode("utf-8", errors="replace")
    header = parse_json(text, dict[str, object], f"{path}: header")
    header.pop("__metadata__", None)
    try:
        entries = {name: validate(entry, TensorEntry, name[:100]) for name, entry in header.items()}
    except ShapeError as error:
        raise DataError(f"{path}: header: {error}") from None
    _check_entries(path, entries.items(), size - 8 - length)


def _check_entries(path: Path, entries: Iterable[tuple[str, TensorEntry]], data_bytes: int) -> None:
    for name, entry in entries:
        first, end = entry["data_offsets"]
        if entry["dtype"] not in ITEM_BYTES:
            expected = ", ".join(ITEM_BYTES)
            raise DataError(f"{path}: {name[:100]}: expected a dtype among {expected}, got {entry['dtype'][:20]!r}")
        if not first <= end <= data_bytes or end - first != prod(entry["shape"]) * ITEM_BYTES[entry["dtype"]]:
            raise DataError(f"{path}: {name[:100]}: its bytes {first} to {end} do not fit shape, dtype and file")
