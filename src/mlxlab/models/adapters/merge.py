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
    adapted = {path: layer for path, layer in model.named_modules() if isinstance(layer, LoRALayer)}
    quantised = {
        path: layer for path, layer in model.named_modules() if isinstance(layer, QuantizedLayer)
    }
    for path, layer in {**quantised, **adapted}.items():
        arrays = {name: array for name, array in arrays.items() if not name.startswith(f"{path}.")}
        inner = layer.base if isinstance(layer, LoRALayer) else layer
        weight = layer.weight if inner is not layer and with_adapters else dense_weight(inner)
        arrays |= {f"{path}.weight": weight} | (
            {f"{path}.bias": inner.bias} if "bias" in inner else {}
        )
    return arrays


def merged_node(node: Mapping[str, Any]) -> dict[str, Any]:
    """The `model` node of that model."""
    quantization = node.get("quantization")
    full = {"quantization": {**quantization, "bits": None}} if quantization else {}
    return {**node, "adapter": None, **full}
