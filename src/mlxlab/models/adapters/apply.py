"""Applies the options of a `model` node to a model: adapters, and what is trained of it."""

import re
from collections.abc import Sequence

import mlx.nn as nn
from mlx.utils import tree_unflatten

from mlxlab.errors import ConfigError
from mlxlab.models.adapters.freeze import adapter_paths, freeze, select_parameters, train_only
from mlxlab.models.adapters.lora import LoRALayer
from mlxlab.models.adapters.quantize import find_layers, quantize
from mlxlab.models.adapters.quantized import QuantizedLayer
from mlxlab.models.layers import Attention, FeedForward, named_parameters
from mlxlab.models.model import Classifier, Model
from mlxlab.models.options import LoRA, ModelOptions
from mlxlab.models.patterns import select
from mlxlab.models.zoo.mlx_lm import MlxLm

KEY = "model.adapter"
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
    trained = [] if options.adapter is None else trained_weights(model, options.adapter)
    if options.quantization.bits is not None:
        layers = {name.removesuffix(".weight") for name in trained if name.endswith(".weight")}
        quantize(model, options.quantization, layers)
    if options.adapter is not None:
        if frozen := sorted(set(drawn) - set(trained)):
            raise ConfigError(
                f"{KEY}.train: expected [head]; {frozen[0]} is not pretrained, it would stay random"
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
    names = select_parameters(model, options.train, f"{KEY}.train")
    classifier = isinstance(model.head, Classifier)
    return names + [
        path for path in named_parameters(model) if classifier and path.startswith("head.")
    ]


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
        return select(options.targets, paths, f"{KEY}.targets")
    if find_layers(model, MlxLm):
        chosen = [path for path in paths if IN_LAYER.search(path)]
    else:
        owners = find_layers(model, Attention | FeedForward)
        chosen = [path for path in paths if path.rpartition(".")[0] in owners]
    if not chosen:
        raise ConfigError(
            f"{KEY}.targets: expected patterns of {', '.join(paths[:8])}; there is no attention layer"
        )
    return chosen
