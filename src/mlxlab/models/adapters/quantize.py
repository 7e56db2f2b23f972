"""Quantises the linear layers and embeddings of a model in place."""

import logging
from collections.abc import Collection
from types import UnionType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from mlxlab.backend.ops.quantized import Packing
from mlxlab.errors import ConfigError
from mlxlab.models.adapters.freeze import FREEZE, select_parameters
from mlxlab.models.adapters.quantized import QuantizedEmbedding, QuantizedLayer, QuantizedLinear
from mlxlab.models.model import Classifier
from mlxlab.models.options import ModelOptions, Quantization
from mlxlab.models.patterns import select
from mlxlab.terminal.wording import some

logger = logging.getLogger(__name__)

KEY = "model.quantization"
MIN_OUTPUTS = 8  # Two token types or one score are not worth quantising.


def quantize(model: nn.Module, options: Quantization, keep: Collection[str] = ()) -> list[str]:
    """Replaces the weights of linear layers and embeddings by quantised ones; returns the paths of the layers.

    Not of a classifier, of layers in `keep` (paths) or `skip`, and of those whose width the group size does not divide,
    which are named in a message.

    Raises:
        ConfigError: a pattern of `skip` matches nothing, or MLX has no such format.
    """
    packing = packing_of(options)
    found = find_layers(model, nn.Linear | nn.Embedding)
    layers = {path: each for path, each in found.items() if len(each.weight) >= MIN_OUTPUTS}
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
    trained = [] if options.freeze else ["all of them"]
    if options.freeze and model is not None:
        frozen = select_parameters(model, options.freeze, FREEZE)
        layers = find_layers(model, QuantizedLayer)
        trained = [path for path in layers if f"{path}.weight" not in frozen]
    if trained:
        hint = f"add model/adapter=lora, or freeze them by {FREEZE}"
        raise ConfigError(f"{KEY}: such weights cannot be trained ({trained[0]}); {hint}")


def packing_of(options: Quantization) -> Packing:
    """ConfigError where MLX has no such format."""
    assert options.bits is not None
    packing = Packing(options.bits, options.group_size, options.mode)
    try:
        packing.pack(mx.zeros((MIN_OUTPUTS, options.group_size)))
    except ValueError as error:
        reason = str(error).removeprefix("[quantize] ")
        raise ConfigError(f"{KEY}: {reason}") from None
    return packing


def find_layers(model: nn.Module, classes: type | UnionType) -> dict[str, Any]:
    """The layers of these classes by path, but not those of a classifier."""
    modules = dict(sorted(model.named_modules()))
    classifiers = [path for path, module in modules.items() if isinstance(module, Classifier)]
    return {
        path: module
        for path, module in modules.items()
        if isinstance(module, classes) and path.rpartition(".")[0] not in classifiers
    }
