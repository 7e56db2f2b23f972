"""Arrays by path: the weights of a model, or the state of its optimizer; safetensors files that hold them."""

import hashlib
import io
import json
import sys
import time
from collections.abc import Callable, Container, Mapping
from math import prod
from pathlib import Path
from typing import Protocol, cast

import mlx.core as mx
import numpy as np
from safetensors import SafetensorError, safe_open

from mlxlab.errors import DataError
from mlxlab.files.untrusted import open_regular

Arrays = dict[str, mx.array]
FLOATS = (mx.float32, mx.float16, mx.bfloat16)
AVERAGE = "average."  # prefix in the optimizer state in memory
TRAINED = "trained."  # prefix in the optimizer state of a checkpoint
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


class Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> object: ...

    def hexdigest(self) -> str: ...


def shapes(arrays: Mapping[str, mx.array]) -> dict[str, tuple[int, ...]]:
    return {path: array.shape for path, array in arrays.items()}


def misfits(arrays: Mapping[str, mx.array], expected: Mapping[str, mx.array]) -> list[str]:
    """What is missing of the expected arrays, and what has another shape."""
    faults = [f"{path} is missing" for path in expected if path not in arrays]
    for path, like in expected.items():
        if path in arrays and arrays[path].shape != like.shape:
            faults.append(f"{path} has shape {arrays[path].shape}, expected {like.shape}")
    return faults


def digest(arrays: Mapping[str, mx.array], algorithm: Callable[[], Hash] = hashlib.sha256) -> str:
    """The hash of paths, types, shapes and bytes."""
    result = algorithm()
    update_hash(result, arrays)
    return result.hexdigest()


def update_hash(result: Hash, arrays: Mapping[str, mx.array]) -> None:
    """Adds paths, types, shapes and bytes, in the order of the paths."""
    for path in sorted(arrays):
        array = arrays[path]
        result.update(f"{path} {array.dtype} {array.shape}".encode())
        result.update(np.array(array.reshape(-1).view(mx.uint8), copy=False).data)


def nonfinite_paths(arrays: Mapping[str, mx.array]) -> list[str]:
    """The arrays that hold NaN or infinity."""
    finite = {
        path: mx.isfinite(array).all() for path, array in arrays.items() if array.dtype in FLOATS
    }
    mx.eval(finite)
    return [path for path, is_finite in finite.items() if not is_finite.item()]


def evaluate_finite(arrays: Arrays, name: str) -> None:
    """Evaluates now, since arrays are read lazily and files may change; DataError for NaN and infinity."""
    try:
        mx.eval(arrays)
        nonfinite = nonfinite_paths(arrays)
    except RuntimeError as error:
        raise DataError(
            f"{name}: weights cannot be read ({str(error).splitlines()[0][:200]})"
        ) from None
    if nonfinite:
        raise DataError(f"{name}: damaged weights: {nonfinite[0]} holds NaN or infinity")


def owner_of(path: str, weights: Container[str]) -> str | None:
    """The weight of an optimizer state: `states.0.<path>.m` belongs to `<path>`, so does `average.<path>`."""
    keys = path.split(".")
    for start in range(len(keys)):
        for end in (len(keys), len(keys) - 1):
            candidate = ".".join(keys[start:end])
            if candidate in weights:
                return candidate
    return None


def swap_weights(weights: Arrays, optimizer: Arrays, old: str, new: str) -> tuple[Arrays, Arrays]:
    """Exchanges the weights with the arrays of the optimizer under `old`; the replaced weights are under `new`.

    From AVERAGE to TRAINED gives what is saved, from TRAINED to AVERAGE restores it.
    """
    swapped = {
        path.removeprefix(old): array for path, array in optimizer.items() if path.startswith(old)
    }
    unchanged = {path: array for path, array in optimizer.items() if not path.startswith(old)}
    return weights | swapped, unchanged | {new + path: weights[path] for path in swapped}


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
