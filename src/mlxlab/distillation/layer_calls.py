"""Captures what named layers of a model compute during a forward pass."""

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlxlab.errors import ConfigError


class LayerCall(NamedTuple):
    """One call of a layer."""

    layer: nn.Module
    arguments: tuple[Any, ...]
    output: mx.array


@contextmanager
def capture_calls(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, LayerCall]]:
    """Within the context, records the last call of each named layer under its name.

    Args:
        names: dotted, as in a checkpoint: `backbone.layers.1.attention`.

    Raises:
        ConfigError: the model has no such layer; suggests the nearest name.
    """
    calls: dict[str, LayerCall] = {}
    slots = [(name, *_find_slot(model, name)) for name in dict.fromkeys(names)]
    layers = [parent[key] for _, parent, key in slots]  # all before any is replaced: one may contain another
    try:
        for (name, parent, key), layer in zip(slots, layers, strict=True):
            parent[key] = _CallRecorder(layer, name, calls)
        yield calls
    finally:
        for (_, parent, key), layer in zip(slots, layers, strict=True):
            parent[key] = layer


class _CallRecorder:
    """Stands in for a layer: records its calls, and is the layer in everything else."""

    def __init__(self, layer: nn.Module, name: str, calls: dict[str, LayerCall]) -> None:
        self._layer, self._name, self._calls = layer, name, calls

    def __call__(self, *arguments: Any, **options: Any) -> mx.array:
        output: mx.array = self._layer(*arguments, **options)
        self._calls[self._name] = LayerCall(self._layer, arguments, output)
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def _find_slot(model: nn.Module, name: str) -> tuple[Any, str | int]:
    """The module or list that holds a layer, and the key of the layer in it."""
    layers = [path for path, _ in model.named_modules() if path]
    if name not in layers:
        nearest = difflib.get_close_matches(name, layers, 1, cutoff=0)
        suggestion = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f"trainer.loss.feature_matching: there is no layer {name}{suggestion}")
    *path, last = name.split(".")
    parent: Any = model
    for step in path:
        parent = parent[int(step)] if isinstance(parent, list) else parent[step]
    return parent, int(last) if isinstance(parent, list) else last
