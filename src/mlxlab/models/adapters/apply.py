"""Applies the options of a `model` node to a model in place: quantisation, adapters, and what is trained of it."""

import logging
import re
from collections.abc import Collection, Sequence
from types import UnionType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten

from mlxlab.backend.ops.quantized import Packing
from mlxlab.errors import ConfigError
from mlxlab.models.adapters.freeze import (
    FREEZE,
    adapter_paths,
    freeze,
    select,
    select_parameters,
    train_only,
)
from mlxlab.models.adapters.lora import LoRALayer
from mlxlab.models.adapters.quantized import QuantizedEmbedding, QuantizedLayer, QuantizedLinear
from mlxlab.models.layers import Attention, FeedForward, named_parameters
from mlxlab.models.model import Classifier, Model
from mlxlab.models.options import LoRA, ModelOptions, Quantization
from mlxlab.models.zoo.mlx_lm import MlxLm
from mlxlab.terminal.wording import some

logger = logging.getLogger(__name__)

ADAPTER = "model.adapter"
QUANTIZATION = "model.quantization"
MIN_OUTPUTS = 8  # Two token types or one score are not worth quantising.
IN_LAYER = re.compile(r"\.\d+\.")  # Architectures of mlx-lm name their layers in several ways.
LAYERS = nn.Linear | nn.Embedding | QuantizedLayer


def apply_options(
    model: Model, options: ModelOptions, seed: int | None, drawn: Sequence[str] = ()
) -> None:
    """Quantises, inserts adapters and freezes what is not trained. The weights of a classifier always train.

    Args:
        seed: of the adapters; None leaves them undrawn.
        drawn: parameters that the pretrained model lacks, so that they are random.

    Raises:
        ConfigError: a pattern matches nothing, random weights would be frozen, or nothing is left to train.
    """
    trained = []
    if options.adapter is not None:
        trained = trained_weights(model, options.adapter)
    if options.quantization.bits is not None:
        layers = {name.removesuffix(".weight") for name in trained if name.endswith(".weight")}
        quantize(model, options.quantization, layers)
    if options.adapter is not None:
        if frozen := sorted(set(drawn) - set(trained)):
            raise ConfigError(
                f"{ADAPTER}.train: expected [head]; {frozen[0]} is not pretrained, it would stay random"
            )
        insert(model, options.adapter, seed)  # changes paths
        train_only(
            model,
            [*adapter_paths(named_parameters(model)), *trained_weights(model, options.adapter)],
        )
    if options.freeze:
        freeze(model, options.freeze)


def trained_weights(model: Model, options: LoRA) -> list[str]:
    """The parameters that are trained in addition to adapters: those that `train` chooses, and all of a classifier."""
    names = select_parameters(model, options.train, f"{ADAPTER}.train")
    if isinstance(model.head, Classifier):
        names += [path for path in named_parameters(model) if path.startswith("head.")]
    return names


def insert(model: nn.Module, options: LoRA, seed: int | None) -> list[str]:
    """Replaces the targets by layers with adapters; returns their paths. The outputs of the model do not change."""
    layers = dict(model.named_modules())
    paths = find_targets(model, options)
    new = {path: LoRALayer(layers[path], options, path, seed) for path in paths}
    model.update_modules(tree_unflatten(list(new.items())))
    return paths


def find_targets(model: nn.Module, options: LoRA) -> list[str]:
    """The paths of the layers that get an adapter: linear layers and embeddings, but not of a classifier."""
    paths = list(find_layers(model, LAYERS))
    if options.targets is not None:
        return select(options.targets, paths, f"{ADAPTER}.targets")
    if find_layers(model, MlxLm):
        chosen = [path for path in paths if IN_LAYER.search(path)]
    else:
        owners = find_layers(model, Attention | FeedForward)
        chosen = [path for path in paths if path.rpartition(".")[0] in owners]
    if not chosen:
        raise ConfigError(
            f"{ADAPTER}.targets: expected patterns of {', '.join(paths[:8])}; there is no attention layer"
        )
    return chosen


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
    skipped = {*keep, *select(options.skip, layers, f"{QUANTIZATION}.skip")}
    odd = []
    new: dict[str, nn.Module] = {}
    for path, layer in layers.items():
        if path in skipped:
            continue
        if layer.weight.shape[1] % options.group_size:
            odd.append(path)
        elif isinstance(layer, nn.Linear):
            new[path] = QuantizedLinear(layer, packing)
        else:
            new[path] = QuantizedEmbedding(layer, packing)
    if odd:
        logger.info(
            f"{QUANTIZATION}: not quantised, the width is not a multiple of group_size={options.group_size}: {some(odd)}"
        )
    model.update_modules(tree_unflatten(list(new.items())))
    return list(new)


def refuse_training(options: ModelOptions, model: nn.Module | None = None) -> None:
    """ConfigError if a training run would train quantised weights: without an adapter they have to be frozen.

    Args:
        model: built with these options; without it, only options that freeze nothing are refused.
    """
    if options.quantization.bits is None or options.adapter is not None:
        return
    trained = []
    if not options.freeze:
        trained = ["all of them"]
    elif model is not None:
        frozen = select_parameters(model, options.freeze, FREEZE)
        layers = find_layers(model, QuantizedLayer)
        trained = [path for path in layers if f"{path}.weight" not in frozen]
    if trained:
        hint = f"add model/adapter=lora, or freeze them by {FREEZE}"
        raise ConfigError(f"{QUANTIZATION}: such weights cannot be trained ({trained[0]}); {hint}")


def packing_of(options: Quantization) -> Packing:
    """ConfigError where MLX has no such format."""
    assert options.bits is not None
    packing = Packing(options.bits, options.group_size, options.mode)
    try:
        packing.pack(mx.zeros((MIN_OUTPUTS, options.group_size)))
    except ValueError as error:
        reason = str(error).removeprefix("[quantize] ")
        raise ConfigError(f"{QUANTIZATION}: {reason}") from None
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
