"""Loads weights of Hugging Face folders (safetensors only) and GGUF files into our backbones, by a table of names.

Every family of published models has such a table.
"""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, cast

import mlx.core as mx
import mlx.nn as nn

from mlxlab.checkpoint.arrays import evaluate_finite, misfits, read_safetensors
from mlxlab.checkpoint.parameter_names import rename
from mlxlab.errors import ConfigError, DataError, InputNotFoundError, NotAllowedError
from mlxlab.files.untrusted import read_json
from mlxlab.models.backbone import Backbone
from mlxlab.models.cnn_hybrid import CnnHybrid
from mlxlab.models.layers import named_parameters
from mlxlab.models.model import Head
from mlxlab.models.pretrained import bert, llama
from mlxlab.models.pretrained.config import PretrainedConfig, read_config
from mlxlab.models.pretrained.family import BERT, TRANSFORMER, Family, Node, split_arrays
from mlxlab.models.pretrained.gguf import gguf_weights
from mlxlab.models.transformer import Transformer
from mlxlab.models.zoo.files import load_published_weights
from mlxlab.models.zoo.mlx_lm import MlxLm
from mlxlab.terminal.wording import some

FAMILIES: Sequence[Family] = (
    bert.FAMILY,
    bert.ROBERTA,
    bert.XLM,
    bert.DISTILBERT,
    bert.MODERNBERT,
    llama.LLAMA,
    llama.MISTRAL,
    llama.QWEN2,
    llama.QWEN3,
)
# Buffers, copies, and heads of pretraining tasks: ignored without a warning.
IGNORED_KEYS = re.compile(
    r"position_ids$|rotary_emb\.inv_freq$|^cls\.predictions\.decoder\.|^cls\.seq_relationship\."
    r"|^lm_head\.decoder\.|^vocab_projector\.weight$|^decoder\.weight$"
)


class WeightIndex(TypedDict):
    """The key of model.safetensors.index.json that is read."""

    weight_map: dict[str, str]  # the file of each weight


def has_pooler(path: Path) -> bool:
    """Whether a model has the dense layer of BERT's pooling."""
    return any(re.search(r"(^|\.)pooler\.dense\.", name) for name in read_arrays(path))


def load_weights(backbone: Backbone, path: Path) -> dict[str, mx.array]:
    """Loads every parameter of `backbone` from the model at `path`, in float32; of a CnnHybrid, those of its encoder.

    Returns the weights of the model's language-modelling head by their path in ours; none for a CnnHybrid, whose head
    is of another shape. DataError if weights are missing, misshapen or unreadable, or a layer has more than ours.
    """
    if isinstance(backbone, MlxLm):
        load_published_weights(backbone, read_arrays(path), str(path))
        return {}
    module = cast(nn.Module, backbone)
    if isinstance(backbone, CnnHybrid):
        module = backbone.encoder
    arrays = _own_arrays(path, read_config(path), module)
    head = {name: arrays.pop(name) for name in list(arrays) if name.startswith("head.")}
    parameters = named_parameters(module)
    unexpected = [name for name in arrays if name not in parameters]
    faults = misfits(arrays, parameters)
    faults += [
        f"{name} is not a weight of this architecture"
        for name in unexpected
        if name.startswith("layers.")
    ]
    if (
        isinstance(module, Transformer)
        and not module.tie_embeddings
        and "head.out.weight" not in head
    ):
        faults.append("lm_head.weight is missing, and the head is not tied")
    if faults:
        raise DataError(f"{path}: weights do not fit: {some(faults)}")
    if unexpected:
        warnings.warn(
            f"{path}: ignored, the model has no such weights: {some(unexpected)}", stacklevel=3
        )
    weights = {
        name: array.astype(mx.float32)
        for name, array in (arrays | head).items()
        if name not in unexpected
    }
    evaluate_finite(weights, str(path))
    module.load_weights([(name, weights[name]) for name in parameters])
    if isinstance(backbone, CnnHybrid):
        return {}
    return {name.removeprefix("head."): weights[name] for name in head}


def load_head_weights(head: Head, weights: dict[str, mx.array]) -> list[str]:
    """Loads what a pretrained model has of the head; returns the rest, which stays random, and warns."""
    parameters = named_parameters(head)
    matching = {
        path: weight
        for path, weight in weights.items()
        if path in parameters and weight.shape == parameters[path].shape
    }
    if missing := sorted(parameters.keys() - matching.keys()):
        names = ", ".join(missing)
        warnings.warn(
            f"the pretrained model has no {names} for the head: initialized at random", stacklevel=2
        )
    head.load_weights(list(matching.items()), strict=False)
    return missing


def _own_arrays(path: Path, config: PretrainedConfig, module: nn.Module) -> dict[str, mx.array]:
    """The arrays at `path` by our names."""
    published = {
        name: array for name, array in read_arrays(path).items() if not IGNORED_KEYS.search(name)
    }
    family = family_of(config, f"{type(module).__module__}.{type(module).__name__}", str(path))
    table = family.table()
    arrays = {
        rename(name, table): array for name, array in split_arrays(published, family.split).items()
    }
    return family.adapt(arrays, config)


def read_arrays(folder: Path) -> dict[str, mx.array]:
    """The arrays of a folder or GGUF file by their published names, unevaluated.

    Raises:
        InputNotFoundError, DataError, NotAllowedError: there are none, they are damaged, or only pickled ones.
    """
    if folder.suffix == ".gguf":
        num_heads = (config := read_config(folder))["num_attention_heads"]
        return dict(gguf_weights(folder, num_heads, config.get("num_key_value_heads") or num_heads))
    arrays: dict[str, mx.array] = {}
    for path in _files(folder):
        arrays |= read_safetensors(
            path.resolve()
        )  # the files of a downloaded snapshot are symbolic links
    return arrays


def _files(folder: Path) -> list[Path]:
    """The files that the index names; without an index model.safetensors, else all safetensors files."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        # Resolved: the files of a downloaded snapshot are symbolic links.
        content = read_json(index.resolve(), WeightIndex, keys=["weight_map"])
        names = sorted(set(content["weight_map"].values()))
        if any(Path(name).name != name for name in names):
            raise NotAllowedError(f"{index}: names files outside its folder")
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise InputNotFoundError(f"{folder}: files of its index not found: {some(missing)}")
        return [folder / name for name in names]
    default = folder / "model.safetensors"
    if default.is_file():
        return [default]
    if files := sorted(folder.glob("*.safetensors")):
        return files
    if pickled := sorted(
        file.name for suffix in ("bin", "pt", "pth") for file in folder.glob(f"*.{suffix}")
    ):
        raise NotAllowedError(
            f"{folder}: has {pickled[0]}, but no safetensors; pickled weights can run code and are not read"
        )
    raise InputNotFoundError(f"{folder}: no safetensors file")


def family_of(config: PretrainedConfig, target: str, title: str) -> Family:
    """The family of a config.json for a backbone; ConfigError if it cannot take its weights."""
    families = [family for family in FAMILIES if target in family.targets]
    if not families:
        raise ConfigError(f"{title}: {target} cannot load pretrained weights")
    model_type = config.get("model_type", families[0].model_type)
    for family in families:
        if family.model_type == model_type:
            return family
    option = target.split(".")[-2]
    supported = ", ".join(family.model_type for family in families)
    raise ConfigError(f"{title}: is of type {model_type}; model={option} loads {supported}")


def export_family(node: Node) -> tuple[Family, dict[str, object]]:
    """The family in whose layout a model can be written, and its config.json.

    Args:
        node: all constructor arguments of the backbone, with `_target_` and `vocab_size`.

    Raises:
        ConfigError: no family computes the same; it names an option of the node.
    """
    target = str(node["_target_"])
    if target == BERT:
        return bert.FAMILY, bert.bert_config(node)
    if target == TRANSFORMER:
        return llama.export_decoder(node)
    raise ConfigError(f"{target} has no counterpart in Hugging Face's layout")
