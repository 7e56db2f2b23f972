"""The gradient of one micro-batch: in float32 or bfloat16, with the activations of all layers or of one at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.loss import Loss
from mlxlab.training.steps.activation_checkpointing import activation_checkpointing
from mlxlab.training.steps.step import PerExample, weighted_sum

Sums = tuple[mx.array, mx.array, PerExample]  # the loss over all targets, its weight, sums by row
Gradient = Callable[[DeviceBatch], tuple[Sums, dict]]


def make_gradient_fn(model: nn.Module, loss: Loss, *, dtype: mx.Dtype, checkpointing: bool) -> Gradient:
    """batch -> (sums, float32 gradients of the trainable weights). The model keeps its float32 weights.

    Args:
        dtype: of the weights and activations while the loss is computed; the loss itself is float32.
        checkpointing: keep only what enters each layer, and compute the rest again on the way back.
    """
    compute = make_functional_gradient_fn(model, loss, dtype=dtype, checkpointing=checkpointing)

    def gradient(batch: DeviceBatch) -> tuple[Sums, dict]:
        with restore_weights_after(model):
            return compute(model.trainable_parameters(), batch)

    return gradient


def make_functional_gradient_fn(
    model: nn.Module, loss: Loss, *, dtype: mx.Dtype, checkpointing: bool
) -> Callable[..., Any]:
    """(weights, batch) -> (sums, gradients). Leaves the weights in the model: `lent` takes them out again."""

    def total(weights: dict, batch: DeviceBatch) -> Sums:
        model.update(_cast(weights, dtype))
        with activation_checkpointing(model, checkpointing):
            return weighted_sum(loss, model, batch)

    return mx.value_and_grad(total)


@contextmanager
def restore_weights_after(model: nn.Module) -> Iterator[None]:
    """The weights are put back afterwards: left alone, the model would keep copies, and bfloat16 ones at that."""
    before = model.parameters()
    try:
        yield
    finally:
        model.update(before)


def _cast(tree: Any, dtype: mx.Dtype) -> Any:
    if dtype == mx.float32:
        return tree
    return tree_map(lambda leaf: leaf.astype(dtype) if leaf.dtype == mx.float32 else leaf, tree)
