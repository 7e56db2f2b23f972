"""Adapters in the arrays of a model by path: inserted, merged, and re-ranked, without the model.

None of it changes what the model computes: exactly at insertion, up to rounding where adapters are folded into weights.
"""

from collections.abc import Iterable, Mapping

import mlx.core as mx

from mlxlab.backend.ops.quantized import Packing
from mlxlab.checkpoint.arrays import Arrays
from mlxlab.checkpoint.parameter_names import CODES
from mlxlab.errors import ConfigError
from mlxlab.models.adapters.freeze import adapted_layers
from mlxlab.models.adapters.lora import merged_weight, new_adapter
from mlxlab.models.options import LoRA


def insert(
    arrays: Mapping[str, mx.array],
    layers: Iterable[str],
    options: LoRA,
    seed: int | None,
    packing: Packing | None = None,
) -> Arrays:
    """The arrays of the model whose `layers` got an adapter; `packing` is that of its quantised weights."""
    targets = set(layers)
    moved: Arrays = {}
    for path, array in arrays.items():
        owner, _, name = path.rpartition(".")
        moved[f"{owner}.base.{name}" if owner in targets else path] = array
    for layer in sorted(targets):
        codes = [
            arrays[path] for name in ("weight", *CODES) if (path := f"{layer}.{name}") in arrays
        ]
        weight = codes[0] if packing is None or codes[1:] == [] else packing.unpack(codes)
        adapter = new_adapter(layer, weight, options, seed)
        moved |= {f"{layer}.{name}": array for name, array in adapter.items()}
    return moved


def merge(arrays: Mapping[str, mx.array], options: LoRA) -> Arrays:
    """The arrays of the model without adapters, folded into its weights; ConfigError if those are quantised."""
    merged: Arrays = dict(arrays)
    scale = options.alpha / options.rank
    for layer in adapted_layers(arrays):
        if f"{layer}.base.scales" in arrays:
            expected = "export merge makes it float32"
            raise ConfigError(f"{layer}: a quantised weight cannot take up its adapter; {expected}")
        a = merged.pop(f"{layer}.lora_a")
        b = merged.pop(f"{layer}.lora_b")
        magnitude = merged.pop(f"{layer}.magnitude", None)
        weight = merged.pop(f"{layer}.base.weight")
        merged[f"{layer}.weight"] = merged_weight(weight, a, b, scale, magnitude)
        if f"{layer}.base.bias" in arrays:
            merged[f"{layer}.bias"] = merged.pop(f"{layer}.base.bias")
    return merged


def rerank(arrays: Mapping[str, mx.array], old: LoRA, new: LoRA, seed: int | None) -> Arrays:
    """The arrays after the adapters were merged and the same layers got new ones."""
    return insert(merge(arrays, old), adapted_layers(arrays), new, seed)
