"""Reads safetensors files, of anyone or of bytes whose checksum is right; writes those that do not fit in memory."""

import io
import json
import sys
import time
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Protocol, cast

import mlx.core as mx
import numpy as np
from safetensors import SafetensorError, safe_open

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import DataError
from mlxlab.files.untrusted import open_regular

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


class ArrayStream(Protocol):
    """Arrays by path that are not in memory together: shapes and dtypes first, then each array, read once in order."""

    @property
    def kinds(self) -> Mapping[str, tuple[tuple[int, ...], mx.Dtype]]:
        """(shape, dtype) of every array, in the order in which they are read."""
        ...

    def __getitem__(self, path: str) -> mx.array: ...


def read_safetensors(path: Path) -> Arrays:
    """The arrays by name, unevaluated; InputNotFoundError or DataError if the file is not one of safetensors.

    The header is checked before MLX sees the file.
    """
    with open_regular(path):  # Nothing else is opened: a pipe would block.
        pass
    try:
        with safe_open(str(path), framework="numpy"):
            return cast(Arrays, mx.load(str(path), format="safetensors"))
    except (SafetensorError, RuntimeError, ValueError) as error:
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
