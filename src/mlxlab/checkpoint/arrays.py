"""Checks the arrays of a checkpoint against those of the model and optimizer that will use them.

Checksums prove that a file is what was saved, not that it fits: MLX loads a wrong shape or dtype without an error.
"""

from collections.abc import Mapping

import mlx.core as mx

from mlxlab.checkpoint.manifest import CorruptCheckpointError

FLOATS = (mx.float32, mx.float16, mx.bfloat16)


def check_arrays(saved: Mapping[str, mx.array], expected: Mapping[str, mx.array], owner: str) -> None:
    """Checks names, shapes, dtypes, and that all numbers are finite.

    Args:
        owner: "model" or "optimizer", for the message.

    Raises:
        CorruptCheckpointError: names the first array that does not fit.
    """
    for name in sorted({*saved, *expected}):
        if name not in saved:
            raise CorruptCheckpointError(f"{owner} array {name} is missing")
        if name not in expected:
            raise CorruptCheckpointError(f"{owner} array {name} is unknown")
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
