"""The weights of a model with its adapters folded in, in full precision."""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxlab.models.adapters.lora import LoRALayer, dense_weight
from mlxlab.models.adapters.quantized import QuantizedLayer
from mlxlab.models.layers import named_parameters


def merged_parameters(model: nn.Module, *, with_adapters: bool = True) -> dict[str, mx.array]:
    """The arrays of the model that computes the same without adapters and without quantised weights, by path.

    Args:
        with_adapters: fold them in; otherwise the weights are those below the adapters.
    """
    arrays = named_parameters(model)
    for path, layer in sorted(model.named_modules(), reverse=True):  # An adapter after its base.
        if not isinstance(layer, LoRALayer | QuantizedLayer):
            continue
        inner = layer.base if isinstance(layer, LoRALayer) else layer
        weight = layer.weight if inner is not layer and with_adapters else dense_weight(inner)
        arrays = {name: array for name, array in arrays.items() if not name.startswith(f"{path}.")}
        arrays[f"{path}.weight"] = weight
        if "bias" in inner:
            arrays[f"{path}.bias"] = inner.bias
    return arrays


def merged_node(node: Mapping[str, Any]) -> dict[str, Any]:
    """The `model` node of that model."""
    quantization = node.get("quantization")
    full = {"quantization": {**quantization, "bits": None}} if quantization else {}
    return {**node, "adapter": None, **full}
