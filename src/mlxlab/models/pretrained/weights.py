"""Loads weights of Hugging Face folders (safetensors only) and GGUF files into our backbones, by a table of names."""

import re
import warnings
from pathlib import Path
from typing import NotRequired, TypedDict, cast

import mlx.core as mx
import mlx.nn as nn

from mlxlab.checkpoint.arrays import evaluate_finite
from mlxlab.checkpoint.safetensors import read_safetensors
from mlxlab.errors import DataError, InputNotFoundError, NotAllowedError
from mlxlab.files.untrusted import read_json
from mlxlab.models.backbone import Backbone
from mlxlab.models.cnn_hybrid import CnnHybrid
from mlxlab.models.layers import named_parameters
from mlxlab.models.model import Head
from mlxlab.models.pretrained.gguf import gguf_weights
from mlxlab.models.pretrained.load import read_config
from mlxlab.models.transformer import Transformer

Names = list[tuple[str, str]]  # a pattern of published names, our name

BERT_NAMES: Names = [
    (r"^bert\.", ""),
    (r"^embeddings\.word_embeddings\.", "embedding."),
    (r"^embeddings\.position_embeddings\.", "position_embedding."),
    (r"^embeddings\.token_type_embeddings\.", "type_embedding."),
    (r"^embeddings\.LayerNorm\.", "norm."),
    (r"^encoder\.layer\.(\d+)\.", r"layers.\1."),
    (r"attention\.self\.(query|key|value)\.", r"attention.\1."),
    (r"attention\.output\.dense\.", "attention.out."),
    (r"attention\.output\.LayerNorm\.", "attention_norm."),
    (r"intermediate\.dense\.", "feed_forward.up."),
    (r"output\.dense\.", "feed_forward.down."),
    (r"output\.LayerNorm\.", "feed_forward_norm."),
    (r"^pooler\.dense\.", "pooler."),
    (r"^cls\.predictions\.transform\.dense\.", "head.transform."),
    (r"^cls\.predictions\.transform\.LayerNorm\.", "head.norm."),
    (r"^cls\.predictions\.bias$", "head.bias"),
    (r"gamma$", "weight"),
    (r"beta$", "bias"),
]
LLAMA_NAMES: Names = [
    (r"^model\.", ""),
    (r"^lm_head\.", "head.out."),
    (r"^embed_tokens\.", "embedding."),
    (r"self_attn\.q_proj\.", "attention.query."),
    (r"self_attn\.k_proj\.", "attention.key."),
    (r"self_attn\.v_proj\.", "attention.value."),
    (r"self_attn\.o_proj\.", "attention.out."),
    (r"mlp\.(gate|up|down)_proj\.", r"feed_forward.\1."),
    (r"input_layernorm\.", "attention_norm."),
    (r"post_attention_layernorm\.", "feed_forward_norm."),
]
GGUF_NAMES: Names = [
    (r"^blk\.", "layers."),
    (r"^output_norm\.", "norm."),
    (r"^output\.", "head.out."),
    (r"^token_embd\.", "embedding."),
    (r"\.attn_norm\.", ".attention_norm."),
    (r"\.ffn_norm\.", ".feed_forward_norm."),
    (r"\.attn_q\.", ".attention.query."),
    (r"\.attn_k\.", ".attention.key."),
    (r"\.attn_v\.", ".attention.value."),
    (r"\.attn_output\.", ".attention.out."),
    (r"\.ffn_(gate|up|down)\.", r".feed_forward.\1."),
]
# Buffers, copies, and heads of pretraining tasks: ignored without a warning.
IGNORED_KEYS = re.compile(r"position_ids$|rotary_emb\.inv_freq$|^cls\.predictions\.decoder\.|^cls\.seq_relationship\.")


class WeightIndex(TypedDict):
    """The contents of model.safetensors.index.json."""

    weight_map: dict[str, str]  # the file of each weight
    metadata: NotRequired[object]


def load_weights(backbone: Backbone, path: Path) -> dict[str, mx.array]:
    """Loads every parameter of `backbone` from the model at `path`, in float32; of a CnnHybrid, those of its encoder.

    Returns the weights of the model's language-modelling head by their path in ours; none for a CnnHybrid, whose head
    is of another shape. DataError if weights are missing, misshapen or unreadable, or a layer has more than ours.
    """
    module = cast(nn.Module, backbone.encoder if isinstance(backbone, CnnHybrid) else backbone)
    names = GGUF_NAMES if path.suffix == ".gguf" else LLAMA_NAMES if backbone.causal else BERT_NAMES
    arrays = {_rename(name, names): array for name, array in read_arrays(path).items() if not IGNORED_KEYS.search(name)}
    head = {name: arrays.pop(name) for name in list(arrays) if name.startswith("head.")}
    shapes = {name: leaf.shape for name, leaf in named_parameters(module).items()}
    unexpected = [name for name in arrays if name not in shapes]
    faults = [f"{name} is missing" for name in shapes if name not in arrays]
    faults += [f"{name} is not a weight of this architecture" for name in unexpected if name.startswith("layers.")]
    faults += [
        f"{name} has shape {arrays[name].shape}, expected {shape}"
        for name, shape in shapes.items()
        if name in arrays and arrays[name].shape != shape
    ]
    if isinstance(module, Transformer) and not module.tie_embeddings and "head.out.weight" not in head:
        faults.append("lm_head.weight is missing, and the head is not tied")
    if faults:
        raise DataError(f"{path}: weights do not fit: {_some(faults)}")
    if unexpected:
        warnings.warn(f"{path}: ignored, the model has no such weights: {_some(unexpected)}", stacklevel=3)
    weights = {name: array.astype(mx.float32) for name, array in (arrays | head).items() if name not in unexpected}
    evaluate_finite(weights, str(path))
    module.load_weights([(name, weights[name]) for name in shapes])
    return {} if isinstance(backbone, CnnHybrid) else {name.removeprefix("head."): weights[name] for name in head}


def load_head_weights(head: Head, weights: dict[str, mx.array]) -> list[str]:
    """Loads what a pretrained model has of the head; returns the rest, which stays random, and warns."""
    parameters = named_parameters(head)
    matching = {path: weights[path] for path, leaf in parameters.items() if path in weights}
    matching = {path: weight for path, weight in matching.items() if weight.shape == parameters[path].shape}
    if missing := sorted(parameters.keys() - matching.keys()):
        names = ", ".join(missing)
        warnings.warn(f"the pretrained model has no {names} for the head: initialized at random", stacklevel=2)
    head.load_weights(list(matching.items()), strict=False)
    return missing


def _some(items: list[str]) -> str:
    return "; ".join(items[:4]) + (f"; and {len(items) - 4} more" if len(items) > 4 else "")


def _rename(name: str, names: Names) -> str:
    for pattern, replacement in names:
        name = re.sub(pattern, replacement, name)
    return name


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
        arrays |= read_safetensors(path.resolve())  # the files of a downloaded snapshot are symbolic links
    return arrays


def _files(folder: Path) -> list[Path]:
    """The files that the index names; without an index model.safetensors, else all safetensors files."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        # Resolved: the files of a downloaded snapshot are symbolic links.
        names = sorted(set(read_json(index.resolve(), WeightIndex)["weight_map"].values()))
        if any(Path(name).name != name for name in names):
            raise NotAllowedError(f"{index}: names files outside its folder")
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise InputNotFoundError(f"{folder}: files of its index not found: {_some(missing)}")
        return [folder / name for name in names]
    default = folder / "model.safetensors"
    files = [default] if default.is_file() else sorted(folder.glob("*.safetensors"))
    if files:
        return files
    if pickled := sorted(file.name for suffix in ("bin", "pt", "pth") for file in folder.glob(f"*.{suffix}")):
        raise NotAllowedError(
            f"{folder}: has {pickled[0]}, but no safetensors; pickled weights can run code and are not read"
        )
    raise InputNotFoundError(f"{folder}: no safetensors file")
