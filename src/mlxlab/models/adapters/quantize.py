"""Quantises the linear layers and embeddings of a model in place."""

import logging
from collections.abc import Collection

import mlx.nn as nn
from mlx.utils import tree_unflatten

from mlxlab.errors import ConfigError
from mlxlab.models.adapters.freeze import select_parameters
from mlxlab.models.adapters.quantized import QuantizedEmbedding, QuantizedLayer, QuantizedLinear
from mlxlab.models.model import Classifier
from mlxlab.models.options import ModelOptions, Quantization
from mlxlab.models.patterns import select
from mlxlab.ops.quantized import Packing
from mlxlab.wording import some

logger = logging.getLogger(__name__)

KEY = "model.quantization"
MIN_OUTPUTS = 8  # of a layer that is quantised: two token types or one score are not worth it
FORMATS = {
    "mxfp4": (4, 32),
    "mxfp8": (8, 32),
    "nvfp4": (4, 16),
}  # bits and group size of a mode that has one format


def quantize(model: nn.Module, options: Quantization, keep: Collection[str] = ()) -> list[str]:
    """Replaces the weights of linear layers and embeddings by quantised ones; returns the paths of the layers.

    Not of a classifier, of layers in `keep` (paths) or `skip`, and of those whose width the group size does not divide,
    which are named in a message.

    Raises:
        ConfigError: a pattern of `skip` matches nothing, or MLX has no such format.
    """
    packing = packing_of(options)
    layers = find_layers(model)
    skipped = {*keep, *select(options.skip, layers, f"{KEY}.skip")}
    layers = {path: layer for path, layer in layers.items() if path not in skipped}
    odd = [path for path, layer in layers.items() if layer.weight.shape[1] % options.group_size]
    if odd:
        logger.info(
            f"{KEY}: not quantised, the width is not a multiple of group_size={options.group_size}: {some(odd)}"
        )
    new = {
        path: QuantizedLinear(layer, packing)
        if isinstance(layer, nn.Linear)
        else QuantizedEmbedding(layer, packing)
        for path, layer in layers.items()
        if path not in odd
    }
    model.update_modules(tree_unflatten(list(new.items())))
    return list(new)


def refuse_training(options: ModelOptions, model: nn.Module | None = None) -> None:
    """ConfigError if a training run would train quantised weights: without an adapter they have to be frozen.

    Args:
        model: built with these options; without it, only options that freeze nothing are refused.
    """
    if options.quantization.bits is None or options.adapter is not None:
        return
    trained = "" if options.freeze else "all of them"
    if model is not None and options.freeze:
        frozen = set(select_parameters(model, options.freeze, "model.freeze"))
        layers = [
            path for path, layer in model.named_modules() if isinstance(layer, QuantizedLayer)
        ]
        trained = next((path for path in layers if f"{path}.weight" not in frozen), "")
    if trained:
        hint = "add model/adapter=lora, or freeze them by model.freeze"
        raise ConfigError(
            f"{KEY}.bits={options.quantization.bits}: such weights cannot be trained ({trained}); {hint}"
        )


def packing_of(options: Quantization) -> Packing:
    """ConfigError where MLX has no such format."""
    assert options.bits is not None
    bits, group_size = FORMATS.get(options.mode, (options.bits, options.group_size))
    if (bits, group_size) != (options.bits, options.group_size) or (
        options.mode == "affine" and group_size < 32
    ):
        expected = (
            f"bits={bits} group_size={group_size}"
            if options.mode in FORMATS
            else "group_size=32, 64 or 128"
        )
        given = f"bits={options.bits} group_size={options.group_size}"
        raise ConfigError(f"{KEY}.mode={options.mode}: expected {expected}, got {given}")
    return Packing(options.bits, options.group_size, options.mode)


def find_layers(model: nn.Module) -> dict[str, nn.Linear | nn.Embedding]:
    """The layers that can be quantised, by path: linear layers and embeddings, but not those of a classifier."""
    classifiers = [path for path, module in model.named_modules() if isinstance(module, Classifier)]
    layers = {
        path: layer
        for path, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Embedding)
    }
    return {
        path: layers[path]
        for path in sorted(layers)
        if path.rpartition(".")[0] not in classifiers
        and layers[path].weight.shape[0] >= MIN_OUTPUTS
    }
