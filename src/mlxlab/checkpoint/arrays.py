"""Compares arrays: those of a checkpoint with those of the model that loads them, and final states by a hash."""

import hashlib
import json
from collections.abc import Mapping

import mlx.core as mx
import numpy as np

from mlxlab.checkpoint.manifest import CorruptCheckpointError

FLOATS = (mx.float32, mx.float16, mx.bfloat16)


def check_arrays(saved: Mapping[str, mx.array], expected: Mapping[str, mx.array], owner: str) -> None:
    """Checks names, shapes, dtypes, and that all numbers are finite: MLX loads a wrong shape or dtype without an error.

    Args:
        owner: "model" or "optimizer", for the message.

    Raises:
        CorruptCheckpointError: names the first array that does not fit.
    """
    for name in sorted({*saved, *expected}):
        if name not in saved or name not in expected:
            raise CorruptCheckpointError(f"{owner} array {name} is {'unknown' if name in saved else 'missing'}")
        array, like = saved[name], expected[name]
        if array.shape != like.shape:
            raise CorruptCheckpointError(f"{owner} array {name}: expected shape {like.shape}, got {array.shape}")
        if array.dtype != like.dtype:
            raise CorruptCheckpointError(f"{owner} array {name}: expected {like.dtype}, got {array.dtype}")
    finite = {name: mx.isfinite(array).all() for name, array in saved.items() if array.dtype in FLOATS}
    mx.eval(finite)
    for name, is_finite in finite.items():
        if not is_finite.item():
            raise CorruptCheckpointError(f"{owner} array {name}: holds NaN or infinity")


def state_digest(
    weights: Mapping[str, mx.array], optimizer: Mapping[str, mx.array], progress: Mapping[str, object]
) -> str:
    """SHA-256 over name, dtype, shape and bytes of every array, in sorted order, and over step and data position."""
    digest = hashlib.sha256(json.dumps(progress, sort_keys=True).encode())
    for group in (weights, optimizer):
        for name in sorted(group):
            array = group[name]
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(np.array(array.reshape(-1).view(mx.uint8)).tobytes())
    return digest.hexdigest()
