"""Adapters, and the other weights trained with them, under the names and in the settings of Hugging Face's PEFT."""

from typing import Any

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.interop.counterpart import Counterpart, Ending
from mlxlab.interop.published_weights import plain_weights
from mlxlab.interop.trained_model import TrainedModel
from mlxlab.models.adapters.freeze import adapter_paths, trainable_names
from mlxlab.models.adapters.lora import LoRALayer
from mlxlab.models.layers import named_parameters
from mlxlab.models.options import split_node

PREFIX = "base_model.model."  # of PEFT's names
TASK_TYPES: dict[Ending, str | None] = {
    "ForCausalLM": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForMaskedLM": None,  # PEFT has none
}


def peft_adapters(trained: TrainedModel, counterpart: Counterpart) -> tuple[Arrays, dict[str, Any]]:
    """The arrays of adapter_model.safetensors, and adapter_config.json without the name of the base model.

    Raises:
        ConfigError: there are no adapters, or PEFT has no such ones for the layers of transformers.
    """
    options = split_node(trained.node)[0].adapter
    if options is None:
        raise ConfigError("model.adapter: expected a run with adapters, model/adapter=lora")
    if counterpart.needs_mlx_lm:
        raise ConfigError("model=mlx_lm: PEFT needs the names of transformers, expected export hf")
    layers = _adapted_layers(trained, counterpart)
    weights = plain_weights(trained, with_adapters=False)
    published = {path: counterpart.published_name(path) for path in weights}
    modules = _trained_modules(trained, counterpart, list(weights))
    arrays: Arrays = {}
    for name, layer in layers.items():
        arrays |= {f"{name}.lora_A.weight": layer.lora_a, f"{name}.lora_B.weight": layer.lora_b}
        if "magnitude" in layer:
            arrays[f"{name}.lora_magnitude_vector"] = layer.magnitude
    arrays |= {
        published[path]: array
        for path, array in weights.items()
        if path.rpartition(".")[0] in modules
    }
    config = {
        "peft_type": "LORA",
        "task_type": TASK_TYPES[counterpart.ending],
        "inference_mode": True,
        "target_modules": sorted(layers),
        "modules_to_save": sorted(modules.values()) or None,
        "r": options.rank,
        "lora_alpha": options.alpha,
        "lora_dropout": options.dropout,
        "use_dora": options.dora,
        "bias": "none",
        "fan_in_fan_out": False,
    }
    return {PREFIX + name: array for name, array in arrays.items()}, config


def _adapted_layers(trained: TrainedModel, counterpart: Counterpart) -> dict[str, LoRALayer]:
    """The layers with adapters by the names of transformers."""
    layers = {}
    for path, layer in trained.model.named_modules():
        if not isinstance(layer, LoRALayer):
            continue
        own = path.removeprefix("backbone.").removeprefix("encoder.")
        name = counterpart.published_name(f"{path}.weight").removesuffix(".weight")
        if layer.looks_up:
            raise ConfigError(
                f"model.adapter.targets: export peft writes adapters of linear layers, not of {own}"
            )
        layers[name] = layer
    return layers


def _trained_modules(
    trained: TrainedModel, counterpart: Counterpart, paths: list[str]
) -> dict[str, str]:
    """Modules whose own weights were trained: their names in transformers by path."""
    parameters = named_parameters(trained.model)
    tied = trained.task.kind == "language_modelling" and bool(
        counterpart.config.get("tie_word_embeddings")
    )
    modules = {}
    for path in sorted(set(trainable_names(trained.model)) - set(adapter_paths(parameters))):
        module = path.rpartition(".")[0]
        nested = any(
            other.startswith(f"{module}.") and other.rpartition(".")[0] != module for other in paths
        )
        if path not in paths or nested or (tied and module == "backbone.embedding"):
            own = path.removeprefix("backbone.").replace(".base.", ".")
            raise ConfigError(
                f"model.adapter.train: PEFT cannot save {own} of {counterpart.name}; expected export hf"
            )
        modules[module] = counterpart.published_name(path).rpartition(".")[0]
    return modules
