"""The adapters of a decoder in the layout of mlx-lm."""

import re
from typing import Any

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.interop.counterpart import counterpart_of
from mlxlab.interop.trained_model import TrainedModel
from mlxlab.models.adapters.lora import LoRALayer
from mlxlab.models.adapters.quantized import QuantizedLayer
from mlxlab.models.options import split_node
from mlxlab.models.zoo.mlx_lm import MlxLm

Config = dict[str, Any]


def mlx_lm_adapters(trained: TrainedModel) -> tuple[Arrays, Config]:
    """The arrays of adapters.safetensors and the contents of adapter_config.json.

    Raises:
        ConfigError: there are no adapters, or those of quantised weights, which the exported model does not have; or
            mlx-lm has no such ones: it adapts the same projections in all layers.
    """
    options = split_node(trained.node)[0].adapter
    if options is None or not trained.generates:
        raise ConfigError("model.adapter: expected a decoder with adapters, model/adapter=lora")
    if any(isinstance(layer, QuantizedLayer) for _, layer in trained.model.named_modules()):
        raise ConfigError(
            "model.quantization: adapters of quantised weights are only written folded in"
        )
    counterpart, arrays = counterpart_of(trained), Arrays()
    keys: dict[str, set[int]] = {}
    for path, layer in trained.model.named_modules():
        if not isinstance(layer, LoRALayer):
            continue
        published = counterpart.published_name(f"{path}.weight").removesuffix(".weight")
        match = re.fullmatch(r"[a-z_.]+\.(\d+)\.(.+)", published)
        if match is None:
            raise ConfigError(f"model.adapter.targets: mlx-lm adapts layers only, not {path}")
        keys.setdefault(match[2], set()).add(int(match[1]))
        arrays |= {f"{published}.lora_a": layer.lora_a.T, f"{published}.lora_b": layer.lora_b.T}
        if "magnitude" in layer:
            arrays[f"{published}.m"] = layer.magnitude
    backbone = trained.model.backbone
    count = len(backbone.model.layers if isinstance(backbone, MlxLm) else backbone.layers)  # type: ignore[attr-defined]
    if partial := [key for key, layers in sorted(keys.items()) if len(layers) < count]:
        raise ConfigError(
            f"model.adapter.targets: mlx-lm adapts {partial[0]} of all layers or none, not of some"
        )
    parameters = {
        "rank": options.rank,
        "scale": options.alpha / options.rank,
        "dropout": options.dropout,
    }
    kind = "dora" if options.dora else "lora"
    return arrays, {
        "fine_tune_type": kind,
        "num_layers": count,
        "lora_parameters": parameters | {"keys": sorted(keys)},
    }
