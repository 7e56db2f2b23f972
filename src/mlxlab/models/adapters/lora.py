"""A layer with a low-rank adapter (Hu et al. 2021), optionally with a learned length of each row (DoRA).

The weight W (out, in) of a linear layer, or of an embedding (vocabulary, width), becomes V = W + scale B A, with A
(rank, in) and B (out, rank); with a magnitude m (out,) each row of V is scaled to the length m (Liu et al. 2024).
"""

import math
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxlab.backend.ops.dropout import Dropout
from mlxlab.checkpoint.arrays import Arrays
from mlxlab.models.adapters.quantized import QuantizedEmbedding, QuantizedLayer, float_weight
from mlxlab.models.initialization import uniform
from mlxlab.models.layers import named_parameters
from mlxlab.models.options import LoRA

MIN_LENGTH = 1e-30  # Rows are divided by their length, and a row of zeros stays one.


class LoRALayer(nn.Module):
    """A linear layer or embedding `base` with an adapter. While B is zero, outputs are those of `base`, bit for bit.

    A is a function of `path` and `seed`; without a seed it is zero too.
    """

    def __init__(
        self, base: nn.Module, options: LoRA, path: str = "", seed: int | None = None
    ) -> None:
        super().__init__()
        self.base = base
        self.looks_up = isinstance(base, nn.Embedding | QuantizedEmbedding)
        self.scale = options.alpha / options.rank
        self.dropout = Dropout(options.dropout)
        for name, array in new_adapter(path, dense_weight(base), options, seed).items():
            self[name] = array

    def __call__(self, x: mx.array) -> mx.array:
        """(..., in) -> (..., out); of an embedding, token ids (...) -> (..., width)."""
        change = self._change()
        if not self.looks_up:
            return self._add(self.base(x), self._update(x), change)
        if change is not None:
            change = change[x][..., None]
        update = (self.scale * self.lora_b[x]) @ self.lora_a
        return self._add(self.base(x), update, change)

    def as_linear(self, x: mx.array) -> mx.array:
        """An embedding as output layer: (..., width) -> (..., vocabulary)."""
        return self._add(self.base.as_linear(x), self._update(x), self._change())

    @property
    def weight(self) -> mx.array:
        """The weight of the layer that computes the same without an adapter."""
        magnitude = self.get("magnitude")
        return merged_weight(
            dense_weight(self.base), self.lora_a, self.lora_b, self.scale, magnitude
        )

    @property
    def bias(self) -> mx.array:
        return self.base.bias

    def _update(self, x: mx.array) -> mx.array:
        """(..., in) -> (..., out). The scale multiplies the few numbers of the rank, not those of the output."""
        return (self.scale * (self.dropout(x) @ self.lora_a.T)) @ self.lora_b.T

    def _add(self, out: mx.array, update: mx.array, change: mx.array | None) -> mx.array:
        if change is None:
            return out + update
        product = out
        if "bias" in self.base:
            product = out - self.base.bias  # DoRA scales the weight, not the bias.
        return out + update + change * (product + update)

    def _change(self) -> mx.array | None:
        """(out,) m / |V| - 1, where |V| counts as a constant in the gradient, as in the paper; None without m."""
        if "magnitude" not in self:
            return None
        # |W + scale B A|^2 of each row, without the matrix B A; in float32 where a step computes in less.
        w, a, b = (
            array.astype(mx.float32)
            for array in (dense_weight(self.base), self.lora_a, self.lora_b)
        )
        mixed = ((w @ a.T) * b).sum(axis=1)
        squared = ((b @ (a @ a.T)) * b).sum(axis=1)
        lengths = mx.sqrt(
            mx.square(w).sum(axis=1) + 2 * self.scale * mixed + self.scale**2 * squared
        )
        change = (
            self.magnitude.astype(mx.float32) / mx.stop_gradient(mx.maximum(lengths, MIN_LENGTH))
            - 1
        )
        return change.astype(self.lora_a.dtype)


def new_adapter(path: str, weight: mx.array, options: LoRA, seed: int | None) -> Arrays:
    """The arrays of a new adapter of the layer at `path`: A is uniform in +-1 / sqrt(in), without a seed zero."""
    out_size, in_size = weight.shape
    a = mx.zeros((options.rank, in_size))
    if seed is not None:
        a = mx.array(uniform(seed, f"{path}.lora_a", a.shape, 1 / math.sqrt(in_size)))
    arrays = {"lora_a": a, "lora_b": mx.zeros((out_size, options.rank))}
    if options.dora:
        arrays["magnitude"] = mx.sqrt(mx.square(weight).sum(axis=1))
    return arrays


def merged_weight(
    weight: mx.array,
    lora_a: mx.array,
    lora_b: mx.array,
    scale: float,
    magnitude: mx.array | None = None,
) -> mx.array:
    """The weight (out, in) with its adapter folded in."""
    merged = weight + scale * (lora_b @ lora_a)
    if magnitude is None:
        return merged
    lengths = mx.sqrt(mx.square(merged).sum(axis=1))
    return merged * (magnitude / mx.maximum(lengths, MIN_LENGTH))[:, None]


def dense_weight(layer: nn.Module) -> mx.array:
    """The weight (out, in) of a layer; of a quantised one, that which its codes stand for."""
    if isinstance(layer, QuantizedLayer):
        return float_weight(layer)
    return layer.weight


def merged_parameters(model: nn.Module, *, with_adapters: bool = True) -> dict[str, mx.array]:
    """The arrays of the model that computes the same without adapters and without quantised weights, by path.

    Args:
        with_adapters: fold them in; otherwise the weights are those below the adapters.
    """
    arrays = named_parameters(model)
    for path, layer in sorted(model.named_modules(), reverse=True):  # An adapter after its base.
        inner = layer
        if isinstance(layer, LoRALayer):
            inner = layer.base
        elif not isinstance(layer, QuantizedLayer):
            continue
        weight = dense_weight(inner)
        if with_adapters and inner is not layer:
            weight = layer.weight
        arrays = {name: array for name, array in arrays.items() if not name.startswith(f"{path}.")}
        arrays[f"{path}.weight"] = weight
        if "bias" in inner:
            arrays[f"{path}.bias"] = inner.bias
    return arrays


def merged_node(node: Mapping[str, Any]) -> dict[str, Any]:
    """The `model` node of that model."""
    merged = {**node, "adapter": None}
    if node.get("quantization"):
        merged["quantization"] = {**node["quantization"], "bits": None}
    return merged
