"""Gradients of one micro-batch, in float32 or bfloat16, with or without activation checkpointing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.loss import Loss
from mlxlab.training.optim.optimizers import Tree
from mlxlab.training.steps.activation_checkpointing import activation_checkpointing
from mlxlab.training.steps.step import PerExample, weighted_sum

LossSums = tuple[mx.array, mx.array, PerExample]  # the loss over all targets, its weight, sums for each row
LossGradient = tuple[LossSums, Tree]  # the tree has the float32 gradients of the trainable weights
Gradient = Callable[[DeviceBatch], LossGradient]
FunctionalGradient = Callable[[Tree, DeviceBatch], LossGradient]  # of weights and a batch


def make_gradient_fn(model: nn.Module, loss: Loss, *, dtype: mx.Dtype, checkpointing: bool) -> Gradient:
    """The gradient as a function of a batch. The weights of the model stay in float32.

    Args:
        dtype: of the weights and activations while the loss is computed; the loss itself is float32.
        checkpointing: store only the input of each layer and recompute its activations in the backward pass.
    """
    compute = make_functional_gradient_fn(model, loss, dtype=dtype, checkpointing=checkpointing)

    def gradient(batch: DeviceBatch) -> LossGradient:
        with restore_weights_after(model):
            return compute(model.trainable_parameters(), batch)

    return gradient


def make_functional_gradient_fn(
    model: nn.Module, loss: Loss, *, dtype: mx.Dtype, checkpointing: bool
) -> FunctionalGradient:
    """The gradient as a function of weights and a batch.

    Leaves the weights in the model; `restore_weights_after` puts the previous ones back.
    """

    def total(weights: Tree, batch: DeviceBatch) -> LossSums:
        model.update(_cast(weights, dtype))
        with activation_checkpointing(model, checkpointing):
            return weighted_sum(loss, model, batch)

    return cast(FunctionalGradient, mx.value_and_grad(total))


@contextmanager
def restore_weights_after(model: nn.Module) -> Iterator[None]:
    """Puts the weights back afterwards; the model would otherwise hold copies, perhaps in bfloat16."""
    before = model.parameters()
    try:
        yield
    finally:
        model.update(before)


def _cast(tree: Tree, dtype: mx.Dtype) -> Tree:
    if dtype == mx.float32:
        return tree
    return tree_map(lambda leaf: leaf.astype(dtype) if leaf.dtype == mx.float32 else leaf, tree)
