"""Linear layers and embeddings whose weights have few bits, in MLX's layout: `weight`, `scales` and `biases`.

The weights are not trained. A bias of the layer itself stays as it was.
"""

import mlx.core as mx
import mlx.nn as nn

from mlxlab.backend.ops.quantized import Packing, packed_product
from mlxlab.checkpoint.parameter_names import CODES
from mlxlab.models.layers import named_parameters

ARRAYS = ("weight", *CODES)


class QuantizedLinear(nn.Module):
    """(..., in) -> (..., out), as the linear layer whose weight was quantised."""

    def __init__(self, layer: nn.Linear, packing: Packing) -> None:
        super().__init__()
        self.packing = packing
        _set_weight(self, layer.weight)
        if "bias" in layer:
            self.bias = layer.bias

    def __call__(self, x: mx.array) -> mx.array:
        x = packed_product(x, packed_arrays(self), self.packing)
        if "bias" in self:
            x = x + self.bias
        return x


class QuantizedEmbedding(nn.Module):
    """Token ids (...) -> (..., width), as the embedding whose table was quantised."""

    def __init__(self, layer: nn.Embedding, packing: Packing) -> None:
        super().__init__()
        self.packing = packing
        _set_weight(self, layer.weight)

    def __call__(self, tokens: mx.array) -> mx.array:
        rows = self.packing.unpack([array[tokens] for array in packed_arrays(self)])
        if "biases" in self:
            rows = rows.astype(self.biases.dtype)  # A low-precision step narrows them.
        return rows

    def as_linear(self, x: mx.array) -> mx.array:
        """Computes logits as an output layer: (..., width) -> (..., vocabulary)."""
        return packed_product(x, packed_arrays(self), self.packing)


QuantizedLayer = QuantizedLinear | QuantizedEmbedding


def packed_arrays(layer: QuantizedLayer) -> list[mx.array]:
    return [layer[name] for name in ARRAYS if name in layer]


def float_weight(layer: QuantizedLayer) -> mx.array:
    """The weight (out, in) that the layer computes with, float32."""
    return layer.packing.unpack(packed_arrays(layer))


def parameter_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter by its path; of a quantised one, that of the weight it stands for, without scales."""
    shapes = {path: leaf.shape for path, leaf in named_parameters(module).items()}
    for path, layer in module.named_modules():
        if isinstance(layer, QuantizedLayer):
            prefix = f"{path}." if path else ""
            shapes |= {f"{prefix}weight": float_weight(layer).shape}  # lazy: nothing is computed
            for name in ARRAYS[1:]:
                shapes.pop(f"{prefix}{name}", None)
    return shapes


def _set_weight(layer: QuantizedLayer, weight: mx.array) -> None:
    arrays = layer.packing.pack(weight.astype(mx.float32))
    for name, array in zip(ARRAYS, arrays, strict=False):  # only the affine mode has biases
        layer[name] = array
    layer.freeze(recurse=False, keys=[name for name in ARRAYS if name in layer])
