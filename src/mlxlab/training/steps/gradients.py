"""Loss and gradients of one micro-batch, in float32 or bfloat16, with or without activation checkpointing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.loss import Loss
from mlxlab.training.optim.optimizers import Tree
from mlxlab.training.random_state import random_key
from mlxlab.training.steps.step import PerExample, Sums, weighted_sum

Gradient = Callable[[DeviceBatch, Tree], Sums]  # of a batch and the trainable weights


def make_gradient_fn(model: nn.Module, loss: Loss, *, dtype: mx.Dtype, checkpointing: bool) -> Gradient:
    """The gradient as a function of a batch and the weights, both in float32.

    Leaves the weights in the model; `restore_weights_after` puts the previous ones back.

    Args:
        dtype: of the weights and activations while the loss is computed; the loss itself is float32.
        checkpointing: store only the input of each layer and recompute its activations in the backward pass.
    """

    def total(weights: Tree, batch: DeviceBatch) -> tuple[mx.array, mx.array, PerExample]:
        if dtype != mx.float32:
            weights = tree_map(lambda leaf: leaf.astype(dtype) if leaf.dtype == mx.float32 else leaf, weights)
        model.update(weights)
        with activation_checkpointing(model, checkpointing):
            return weighted_sum(loss, model, batch)

    value_and_grad = mx.value_and_grad(total)

    def gradient(batch: DeviceBatch, weights: Tree) -> Sums:
        (loss, weight, per_example), gradients = value_and_grad(weights, batch)
        return {"loss": loss, "weight": weight, "gradients": gradients}, per_example

    return gradient


@contextmanager
def restore_weights_after(model: nn.Module) -> Iterator[None]:
    """Puts the weights back afterwards; the model would otherwise hold copies, perhaps in bfloat16."""
    before = model.parameters()
    try:
        yield
    finally:
        model.update(before)


@contextmanager
def activation_checkpointing(model: nn.Module, enabled: bool) -> Iterator[None]:
    """Inside, if `enabled`, the layers in every list named `layers` are checkpointed. Set their weights before.

    Only the input of such a layer is stored; it is computed again in the backward pass (Chen et al. 2016).
    """
    owners = [module for module in model.modules() if isinstance(module.get("layers"), list)] if enabled else []
    before = [module["layers"] for module in owners]
    for module, layers in zip(owners, before, strict=True):
        module["layers"] = [_checkpointed(layer) for layer in layers]
    try:
        yield
    finally:
        for module, layers in zip(owners, before, strict=True):
            module["layers"] = layers


def _checkpointed(layer: nn.Module) -> Callable[..., mx.array]:
    """The layer as a function (x, *inputs) -> array whose activations are not stored.

    MLX runs the function a second time for the gradient, and dropout must draw the same numbers then: the second pass
    starts from the random state of the first, and restores the state before it.
    """

    def call(x: mx.array, *inputs: object) -> mx.array:
        start, first_pass = mx.array(random_key()), [True]

        def forward(weights: Tree, x: mx.array) -> mx.array:
            before = mx.array(random_key())
            random_key()[:] = start
            layer.update(weights)
            out = layer(x, *inputs)
            if not first_pass:
                random_key()[:] = before
            first_pass.clear()
            return out

        return mx.checkpoint(forward)(layer.trainable_parameters(), x)

    return call
