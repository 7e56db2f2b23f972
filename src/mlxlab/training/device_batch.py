"""Converts NumPy batches to MLX arrays; called in the training thread only."""

from typing import NamedTuple

import mlx.core as mx
from mlx.utils import tree_map

from mlxlab.data.batch import Batch


class DeviceBatch(NamedTuple):
    """A `Batch` on the device, field by field."""

    tokens: mx.array  # (B, T) int32
    segment_ids: (
        mx.array
    )  # (B, T) int32: 0 padding, k > 0 the k-th document of the row; bool if each row has one
    targets: (
        mx.array
    )  # int32: (B,) classes, or (B, T) tokens; float32: (B, L) labels, or (B,) numbers
    loss_weights: mx.array  # like targets, float32
    example_ids: mx.array  # (B,) int64
    aux: dict[str, mx.array] = {}  # (B, ...) by name


def to_device(batch: Batch) -> DeviceBatch:
    return DeviceBatch(*tree_map(mx.array, tuple(batch)))
