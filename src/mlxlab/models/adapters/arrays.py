"""The arrays of a model by path, without the model: how they are stored, and adapters inserted, merged and re-ranked.

No change of adapters changes what the model computes: exactly at insertion, up to rounding where adapters are folded into weights.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict

import mlx.core as mx

from mlxlab.backend.ops.quantized import Packing
from mlxlab.checkpoint.arrays import Arrays
from mlxlab.checkpoint.parameter_names import CODES
from mlxlab.checkpoint.transfer import Layout
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import ShapeError, read_json, validate
from mlxlab.models.adapters.freeze import adapted_layers
from mlxlab.models.adapters.lora import merged_weight, new_adapter
from mlxlab.models.options import LoRA, split_node


def insert(
    arrays: Mapping[str, mx.array],
    layers: Iterable[str],
    options: LoRA,
    seed: int | None,
    packing: Packing | None = None,
) -> Arrays:
    """The arrays of the model whose `layers` got an adapter; `packing` is that of its quantised weights."""
    targets = set(layers)
    moved = {}
    for path, array in arrays.items():
        owner, _, name = path.rpartition(".")
        if owner in targets:
            path = f"{owner}.base.{name}"
        moved[path] = array
    for layer in sorted(targets):
        codes = [
            arrays[path] for name in ("weight", *CODES) if (path := f"{layer}.{name}") in arrays
        ]
        weight = codes[0]
        if packing is not None and len(codes) > 1:
            weight = packing.unpack(codes)
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


class Codes(TypedDict, total=False):
    """How weights are quantised, in the config.json of a published model."""

    group_size: Literal[16, 32, 64, 128]
    bits: Literal[2, 3, 4, 5, 6, 8]
    mode: Literal["affine", "mxfp4", "mxfp8", "nvfp4"]


def layout_of(node: Mapping[str, Any]) -> Layout:
    """The layout of the arrays of the model of a `model` node."""
    options = split_node(node)[0]
    scale = 1.0
    if options.adapter is not None:
        scale = options.adapter.alpha / options.adapter.rank
    codes = options.quantization
    return Layout(scale, codes.group_size, codes.bits or Layout.bits, codes.mode)


def published_layout(folder: Path) -> Layout:
    """The layout of a published model: `quantization` in its config.json, as mlx-lm writes it.

    It holds the options of all layers, and by the name of a layer others. DataError if it is damaged.
    """
    # Resolved: the files of a downloaded snapshot are symbolic links.
    file = (folder / "config.json").resolve()
    if not file.is_file():
        return Layout()
    try:
        content = read_json(file, dict[str, object], keys=["quantization"])
        saved = validate(content.get("quantization") or {}, dict[str, object])
        layers = {
            name: _read_codes(value, name)
            for name, value in saved.items()
            if isinstance(value, dict)
        }
        return replace(_read_codes(saved), exceptions=layers)
    except ShapeError as error:
        raise DataError(f"{file}: quantization: {error}") from None


def _read_codes(saved: Mapping[str, object], path: str = "") -> Layout:
    known = {key: value for key, value in saved.items() if key in Codes.__annotations__}
    codes: Codes = validate(known, Codes, path)
    return Layout(**codes)
