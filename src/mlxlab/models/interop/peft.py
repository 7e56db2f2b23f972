"""Writes the adapters of a trained model as a folder that Hugging Face's PEFT loads."""

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError, UserError
from mlxlab.files.atomic import new_folder
from mlxlab.files.untrusted import read_json
from mlxlab.models.adapters.apply import find_layers
from mlxlab.models.adapters.freeze import adapter_paths, frozen_parameters, trainable_names
from mlxlab.models.adapters.lora import LoRALayer
from mlxlab.models.adapters.quantized import QuantizedLayer
from mlxlab.models.build import build_model
from mlxlab.models.interop import hugging_face
from mlxlab.models.interop.counterpart import (
    Counterpart,
    Ending,
    TrainedModel,
    counterpart_of,
    plain_weights,
    refuse_unwritable,
)
from mlxlab.models.interop.hugging_face import (
    model_files,
    tokenizer_files,
    write_arrays,
    write_files,
)
from mlxlab.models.interop.model_card import PEFT, Origin, model_card
from mlxlab.models.layers import named_parameters
from mlxlab.models.options import split_node
from mlxlab.models.pretrained.load import resolve

PREFIX = "base_model.model."  # start of every name in PEFT
TASK_TYPES: dict[Ending, str | None] = {
    "ForCausalLM": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForMaskedLM": None,  # PEFT has none
}
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
BASE = "base"  # the folder of the base model
MOVED = (
    "Run the lines below inside this folder; they work wherever it is. `AutoPeftModel` reads the path of `base/` from "
    "`adapter_config.json` (`base_model_name_or_path`) instead: after moving the folder, change it there."
)
DENSE = (
    "The adapters were trained on weights in few bits. On the published weights, which are not rounded, the outputs "
    "differ a little."
)


def export_peft(trained: TrainedModel, out: Path, origin: Origin, published: str | None) -> None:
    """Writes adapter_config.json, adapter_model.safetensors, tokenizer and README.md, as a whole or not at all.

    Where no published model has the weights below the adapters, they are in `base/`, as transformers reads them.

    Args:
        out: the folder; it must not exist.
        published: the folder, GGUF file or hub id of the pretrained model that the run began with; None for none.

    Raises:
        ConfigError: transformers has no such model, or PEFT no such adapters.
        CannotCreateError: `out` exists. WriteError: it cannot be written.
    """
    counterpart = counterpart_of(trained)
    arrays, config = _adapters(trained, counterpart)
    source = published and _same_model(published, trained, counterpart)
    config["base_model_name_or_path"] = source or str(out.absolute() / BASE)
    files = {CONFIG: json.dumps(config, indent=1) + "\n", **tokenizer_files(trained)}
    base = json.dumps(source or BASE)
    notes = [MOVED]
    if source:
        notes = []
        if find_layers(trained.model, QuantizedLayer):
            notes = [DENSE]
        if counterpart.ending == "ForSequenceClassification":
            # The published config.json has other outputs.
            base += f", num_labels={trained.task.num_classes}"
            if trained.model.backbone.causal:
                base += f", pad_token_id={trained.tokenizer.pad_id}"
    count = sum(array.size for array in arrays.values())
    chats = trained.template is not None

    with refuse_unwritable(out), new_folder(out) as folder:
        digest = write_arrays(folder / WEIGHTS, arrays)
        described = replace(origin, hashes={**origin.hashes, WEIGHTS: digest})
        card = model_card(described, counterpart, count, notes, (PEFT,), base=base, chats=chats)
        write_files(folder, {**files, "README.md": card})
        if not source:
            weights = plain_weights(trained, with_adapters=False)
            named = {counterpart.published_name(path): each for path, each in weights.items()}
            (folder / BASE).mkdir()
            write_arrays(folder / BASE / hugging_face.WEIGHTS, named)
            write_files(folder / BASE, model_files(trained, counterpart, "float32"))


def _adapters(trained: TrainedModel, counterpart: Counterpart) -> tuple[Arrays, dict[str, Any]]:
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


def _same_model(published: str, trained: TrainedModel, counterpart: Counterpart) -> str | None:
    """The name by which transformers loads the weights below the adapters, under their names; None if there is none."""
    try:
        folder = resolve(published)
        # Resolved: the files of a downloaded snapshot are symbolic links.
        file = (folder / "config.json").resolve()
        config = read_json(file, dict[str, object], keys=["model_type", "quantization"])
    except UserError:  # It is gone, or a GGUF file.
        return None
    # All decoders have the names of Llama, encoders have several; transformers does not read the codes of mlx-lm.
    same = (
        trained.model.backbone.causal
        or config.get("model_type") == counterpart.config["model_type"]
    )
    if not same or "quantization" in config or not _has_frozen_weights(str(folder), trained):
        return None
    if "/" not in published or folder == Path(os.path.expanduser(published)):
        return str(folder.absolute())
    return published


def _has_frozen_weights(published: str, trained: TrainedModel) -> bool:
    """Whether a run that begins with a published model has the frozen weights of this one, which was resumed perhaps.

    Growth, other tokens, or training before the adapters change them, and so does who writes into the folder.
    """
    task = trained.task
    node = {**trained.node, "pretrained": published}
    try:
        with warnings.catch_warnings(action="ignore"):  # the run has shown them
            model = build_model(
                node,
                kind=task.kind,
                vocab_size=trained.tokenizer.vocab_size,
                num_classes=task.num_classes,
                pair_separator=task.pair_separator,
                seed=0,
            )
    except UserError:  # the weights are missing, or are those of another architecture
        return False
    expected = frozen_parameters(model)
    frozen = frozen_parameters(trained.model)
    return expected.keys() == frozen.keys() and all(
        mx.array_equal(expected[path], frozen[path]) for path in frozen
    )
