"""Reads safetensors files: bytes whose checksum is right, or files that anyone may have written; writes large ones."""

import io
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypedDict, cast

import mlx.core as mx
import numpy as np

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.constraints import Count, MaxLen
from mlxlab.errors import DataError
from mlxlab.files.untrusted import ShapeError, open_regular, parse_json, validate

MAX_HEADER_BYTES = 64 * 2**20
MAX_DIMENSIONS = 8
DTYPES = {
    mx.bool_: "BOOL",
    mx.uint8: "U8",
    mx.int8: "I8",
    mx.uint16: "U16",
    mx.int16: "I16",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.uint32: "U32",
    mx.int32: "I32",
    mx.float32: "F32",
    mx.uint64: "U64",
    mx.int64: "I64",
}
ITEM_BYTES = {name: dtype.size for dtype, name in DTYPES.items()}


class ArrayStream(Protocol):
    """Arrays by path that are not in memory together: shapes and dtypes first, then each array, read once in order."""

    @property
    def kinds(self) -> Mapping[str, tuple[tuple[int, ...], mx.Dtype]]:
        """(shape, dtype) of every array, in the order in which they are read."""
        ...

    def __getitem__(self, path: str) -> mx.array: ...


class TensorEntry(TypedDict):
    """One array in the header of a file."""

    dtype: Literal[
        "BOOL", "U8", "I8", "U16", "I16", "F16", "BF16", "U32", "I32", "F32", "U64", "I64"
    ]
    shape: Annotated[list[Count], MaxLen(MAX_DIMENSIONS)]
    data_offsets: tuple[Count, Count]


def read_safetensors(path: Path) -> Arrays:
    """The arrays by name, unevaluated; InputNotFoundError or DataError if the file is not one of safetensors.

    The header is checked before MLX sees the file.
    """
    _check_header(path)
    try:
        return cast(Arrays, mx.load(str(path), format="safetensors"))
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"{path}: not a valid safetensors file ({str(error).splitlines()[0][:200]})"
        ) from None


def parse_arrays(data: bytes) -> Arrays:
    """The arrays by name, in memory, from verified bytes; RuntimeError or ValueError if they are not safetensors."""
    source = io.BytesIO(data)
    before = sys.getrefcount(source)
    arrays = mx.load(source, format="safetensors")
    assert isinstance(arrays, dict)
    mx.eval(arrays)  # lazy otherwise
    # MLX's reading threads release the source a moment later, and abort a process that is ending just then.
    deadline = time.monotonic() + 5
    while sys.getrefcount(source) > before and time.monotonic() < deadline:
        time.sleep(0.0002)
    return arrays


def write_safetensors(path: Path, arrays: Arrays | ArrayStream) -> None:
    """Writes arrays by path; those of a stream one after the other. Raises OSError or RuntimeError as the file does."""
    if isinstance(arrays, dict):
        mx.save_safetensors(str(path), arrays, {"format": "mlx"})
        return
    header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    end = 0
    for name, (shape, dtype) in arrays.kinds.items():
        start = end
        end = end + prod(shape) * dtype.size
        header[name] = {"dtype": DTYPES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in arrays.kinds:
            file.write(
                np.array(mx.contiguous(arrays[name]).reshape(-1).view(mx.uint8), copy=False).data
            )


def _check_header(path: Path) -> None:
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise DataError(
                f"{path}: not a valid safetensors file (a header of {length} bytes in a file of {size})"
            )
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
        if (
            not first <= end <= data_bytes
            or end - first != prod(entry["shape"]) * ITEM_BYTES[entry["dtype"]]
        ):
            raise DataError(
                f"{path}: {name[:100]}: its bytes {first} to {end} do not fit shape, dtype and file"
            )
