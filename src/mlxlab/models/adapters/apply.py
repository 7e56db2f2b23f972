"""Applies the options of a `model` node to a model: adapters, and what is trained of it."""

import mlx.nn as nn
from mlx.utils import tree_unflatten

from mlxlab.errors import ConfigError
from mlxlab.models.adapters.arrays import adapter_paths
from mlxlab.models.adapters.freeze import freeze, select_parameters, train_only
from mlxlab.models.adapters.lora import LoRALayer, initial_a
from mlxlab.models.adapters.quantize import quantize
from mlxlab.models.adapters.quantized import QuantizedLayer
from mlxlab.models.cnn_hybrid import CnnHybrid
from mlxlab.models.layers import Attention, FeedForward, named_parameters
from mlxlab.models.model import Classifier, Model
from mlxlab.models.options import LoRA, ModelOptions
from mlxlab.models.patterns import select

KEY = "model.adapter"
LAYERS = nn.Linear | nn.Embedding | QuantizedLayer


def apply_options(model: Model, options: ModelOptions, seed: int | None) -> None:
    """Quantises, inserts adapters and freezes what is not trained.

    Args:
        seed: of the adapters; None leaves them undrawn.

    Raises:
        ConfigError: a pattern matches nothing, or nothing is left to train.
    """
    if options.quantization.bits is not None:
        quantize(model, options.quantization, layers_to_train(model, options))
    if options.adapter is not None:
        insert(model, options.adapter, seed)
        adapters = adapter_paths(named_parameters(model))
        chosen = select_parameters(model, options.adapter.train, f"{KEY}.train")
        train_only(model, [*adapters, *chosen, *new_parameters(model, options)])
    if options.freeze:
        freeze(model, options.freeze)


def insert(model: nn.Module, options: LoRA, seed: int | None) -> list[str]:
    """Replaces the targets by layers with adapters; returns their paths. The outputs of the model do not change."""
    layers = dict(model.named_modules())
    paths = find_targets(model, options)
    new = {path: LoRALayer(layers[path], options) for path in paths}
    for path, layer in new.items():
        if seed is not None:
            layer.lora_a = initial_a(seed, path, layer.lora_a.shape)
    model.update_modules(tree_unflatten(list(new.items())))
    return paths


def find_targets(model: nn.Module, options: LoRA) -> list[str]:
    """The paths of the layers that get an adapter: linear layers and embeddings, but not of a classifier."""
    layers = [(path, layer) for path, layer in model.named_modules() if isinstance(layer, LAYERS)]
    classifiers = [path for path, module in model.named_modules() if isinstance(module, Classifier)]
    paths = sorted(path for path, _ in layers if path.rpartition(".")[0] not in classifiers)
    if options.targets is not None:
        return select(options.targets, paths, f"{KEY}.targets")
    owners = {path for path, module in model.named_modules() if isinstance(module, Attention | FeedForward)}
    chosen = [path for path in paths if path.rpartition(".")[0] in owners]
    if not chosen:
        raise ConfigError(f"{KEY}.targets: expected patterns of {', '.join(paths[:8])}; there is no attention layer")
    return chosen


def layers_to_train(model: Model, options: ModelOptions) -> set[str]:
    """The paths of the layers whose weights an adapter leaves trainable, so that they are not quantised."""
    if options.adapter is None:
        return set()
    names = [*select_parameters(model, options.adapter.train, f"{KEY}.train"), *new_parameters(model, options)]
    return {name.removesuffix(".weight") for name in names if name.endswith(".weight")}


def new_parameters(model: Model, options: ModelOptions) -> list[str]:
    """Parameters that no pretrained model has, so that they are trained whatever `train` says.

    Those of a classifier, and of a CnnHybrid whose encoder is pretrained, all outside the encoder.
    """
    names = [path for path in named_parameters(model) if not path.startswith("backbone.encoder.")]
    classifier, hybrid = isinstance(model.head, Classifier), isinstance(model.backbone, CnnHybrid)
    is_new = {"head": classifier, "backbone": hybrid and options.pretrained is not None}
    return [path for path in names if is_new.get(path.partition(".")[0])]
