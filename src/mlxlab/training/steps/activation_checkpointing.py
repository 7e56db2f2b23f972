"""Activation checkpointing (Chen et al. 2016): stores only the input of each layer and recomputes it backwards."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn

from mlxlab.training.optim.optimizers import Tree
from mlxlab.training.random_state import random_key


@contextmanager
def activation_checkpointing(model: nn.Module, enabled: bool) -> Iterator[None]:
    """Inside, if `enabled`, the layers in every list named `layers` are checkpointed. Set their weights before."""
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
