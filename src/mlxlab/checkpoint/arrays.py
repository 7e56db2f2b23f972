"""Arrays by path: the weights of a model, or the state of its optimizer."""

import hashlib
from collections.abc import Callable, Container, Mapping
from typing import Protocol

import mlx.core as mx
import numpy as np

from mlxlab.errors import DataError

Arrays = dict[str, mx.array]

FLOATS = (mx.float32, mx.float16, mx.bfloat16)
AVERAGE, TRAINED = (
    "average.",
    "trained.",
)  # prefixes in the optimizer state: in memory; in a checkpoint


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
