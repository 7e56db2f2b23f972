"""Adapters in the arrays of a model by path: inserted, merged, and re-ranked, without the model.

None of it changes what the model computes: exactly at insertion, up to rounding where adapters are folded into weights.
"""

from collections.abc import Iterable, Mapping

import mlx.core as mx

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.checkpoint.parameter_names import ADAPTER, CODES
from mlxlab.errors import ConfigError
from mlxlab.models.adapters.freeze import adapted_layers
from mlxlab.models.adapters.lora import initial_a, merged_weight
from mlxlab.models.options import LoRA
from mlxlab.ops.quantized import Packing


def new_adapter(layer: str, weight: mx.array, options: LoRA, seed: int | None) -> Arrays:
    """The arrays of a new adapter of the layer at `layer`, whose weight is (out, in); without a seed not drawn."""
    out_size, in_size = weight.shape
    shape = (options.rank, in_size)
    a = mx.zeros(shape) if seed is None else initial_a(seed, layer, shape)
    arrays = {f"{layer}.lora_a": a, f"{layer}.lora_b": mx.zeros((out_size, options.rank))}
    return arrays | (
        {f"{layer}.magnitude": mx.sqrt(mx.square(weight).sum(axis=1))} if options.dora else {}
    )


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
        moved |= new_adapter(layer, weight, options, seed)
    return moved


def merge(arrays: Mapping[str, mx.array], options: LoRA) -> Arrays:
    """The arrays of the model without adapters, folded into its weights; ConfigError if those are quantised."""
    bases: dict[str, Arrays] = {layer: {} for layer in adapted_layers(arrays)}
    adapters = {f"{layer}.{name}" for layer in bases for name in ADAPTER}
    merged: Arrays = {}
    for path, array in arrays.items():
        layer, _, name = path.rpartition(".base.")
        if layer in bases:
            bases[layer][name] = array
        elif path not in adapters:
            merged[path] = array
    for layer, base in sorted(bases.items()):
        a, b = (arrays[f"{layer}.{name}"] for name in ADAPTER[:2])
        if "scales" in base:
            raise ConfigError(
                f"{layer}: a quantised weight cannot take up its adapter; export merge makes it float32"
            )
        scale = options.alpha / options.rank
        magnitude = arrays.get(f"{layer}.magnitude")
        weight = merged_weight(base.pop("weight"), a, b, scale, magnitude)
        merged |= {f"{layer}.weight": weight} | {
            f"{layer}.{name}": array for name, array in base.items()
        }
    return merged


def rerank(arrays: Mapping[str, mx.array], old: LoRA, new: LoRA, seed: int | None) -> Arrays:
    """The arrays after the adapters were merged and the same layers got new ones."""
    return insert(merge(arrays, old), adapted_layers(arrays), new, seed)
