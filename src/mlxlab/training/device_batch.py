"""Where NumPy batches become MLX arrays: here, and in the training thread only."""

from typing import NamedTuple

import mlx.core as mx

from mlxlab.data.batch import Batch


class DeviceBatch(NamedTuple):
    """A `Batch` on the device, field by field."""

    tokens: mx.array  # (B, T) int32
    mask: mx.array  # (B, T) int32: 0 is padding, k > 0 the document's number in its row; bool: one document a row
    targets: mx.array  # (B,) or (B, T) int32
    weights: mx.array  # like targets, float32
    ids: mx.array  # (B,) int64
    extra: dict[str, mx.array] = {}  # (B, ...) by name


def to_device(batch: Batch) -> DeviceBatch:
    tokens, mask, targets, weights, ids = map(mx.array, batch[:5])
    extra = {name: mx.array(values) for name, values in batch.extra.items()}
    return DeviceBatch(tokens, mask, targets, weights, ids, extra)
