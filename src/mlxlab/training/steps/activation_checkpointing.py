"""Activation checkpointing (Chen et al. 2016): a layer keeps what enters it and is computed again on the way back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn


@contextmanager
def activation_checkpointing(model: nn.Module, expected: bool) -> Iterator[None]:
    """Inside, if `expected`, the layers of every list called `layers` are checkpointed. Set their weights before."""
    lists = [module for module in model.modules() if isinstance(module.get("layers"), list)] if expected else []
    before = [module["layers"] for module in lists]
    for module, layers in zip(lists, before, strict=True):
        module["layers"] = [_again(layer) for layer in layers]
    try:
        yield
    finally:
        for module, layers in zip(lists, before, strict=True):
            module["layers"] = layers


def _again(layer: nn.Module) -> Callable[..., mx.array]:
    """The layer as a function (x, *rest) -> array whose inside is not kept.

    MLX runs the function a second time for the gradient, and dropout must draw the same numbers then: it starts from
    the random state of the first time, and leaves the state as it found it.
    """

    random: Any = mx.random.state

    def call(x: mx.array, *rest: Any) -> mx.array:
        start, first = mx.array(random[0]), [True]

        def inside(weights: dict, x: mx.array) -> mx.array:
            now = mx.array(random[0])
            random[0][:] = start
            layer.update(weights)
            out = layer(x, *rest)
            if not first:
                random[0][:] = now
            first.clear()
            return out

        return mx.checkpoint(inside)(layer.trainable_parameters(), x)

    return call
