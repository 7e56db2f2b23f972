"""Weights of others: Hugging Face folders of BERT and Llama type, safetensors only."""

import json
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlxlab.errors import ConfigFault, DataFault, InputMissing, Refused, ServiceMissing
from mlxlab.models.bert import Bert
from mlxlab.models.transformer import Transformer

BERT_NAMES = [  # theirs, ours
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
    (r"gamma$", "weight"),
    (r"beta$", "bias"),
]
PROJECTIONS = {"q": "query", "k": "key", "v": "value", "o": "out"}
LLAMA_NAMES = [
    (r"^model\.", ""),
    (r"^embed_tokens\.", "embedding."),
    (r"self_attn\.([qkvo])_proj\.", lambda match: f"attention.{PROJECTIONS[match[1]]}."),
    (r"mlp\.(gate|up|down)_proj\.", r"feed_forward.\1."),
    (r"input_layernorm\.", "attention_norm."),
    (r"post_attention_layernorm\.", "feed_forward_norm."),
]
LEFT_OUT = re.compile(r"position_ids$|^cls\.|^classifier\.|rotary_emb|^lm_head\.")


def resolve(name: str) -> Path:
    """The folder of a pretrained model: a local one, else a snapshot from the hub.

    Raises:
        InputMissing: it is not there. ServiceMissing: the hub cannot be had.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or folder.is_absolute():
        raise InputMissing(f"model.pretrained={name}: no such folder, and no hub id (owner/name)")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ServiceMissing(f"model.pretrained={name}: no such folder; for hub ids install mlxlab[hub]") from None
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except Exception as error:  # the hub's client raises what its transports raise
        raise ServiceMissing(f"model.pretrained={name}: the hub did not answer ({type(error).__name__})") from None


def load_bert(name: str, shape: dict[str, Any]) -> Bert:
    """A BERT of the folder's shape with its weights; `shape` gives what a config.json does not say."""
    folder = resolve(name)
    config = read_config(folder)
    if config.get("model_type", "bert") != "bert":
        raise ConfigFault(f"model.pretrained={name}: is of type {config['model_type']}, model=bert loads bert")
    taken = {
        "width": config["hidden_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "feed_forward": config["intermediate_size"],
        "max_length": config["max_position_embeddings"],
        "mlp": {"gelu": "gelu", "relu": "relu", "silu": "silu"}.get(config.get("hidden_act", "gelu"), "gelu"),
        "eps": config.get("layer_norm_eps", 1e-12),
        "vocab_size": _vocabulary(name, config, shape),
    }
    return _fill(Bert(**(shape | taken | {"rope_base": None, "pre_norm": False})), folder, BERT_NAMES)


def load_llama(name: str, shape: dict[str, Any]) -> Transformer:
    """A decoder of the folder's shape with its weights."""
    folder = resolve(name)
    config = read_config(folder)
    if config.get("attention_bias") or config.get("rope_scaling"):
        raise ConfigFault(f"model.pretrained={name}: attention biases or scaled rotary positions are not supported")
    taken = {
        "width": config["hidden_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "num_kv_heads": config.get("num_key_value_heads"),
        "feed_forward": config["intermediate_size"],
        "rope_base": float(config.get("rope_theta", 10000.0)),
        "eps": config.get("rms_norm_eps", 1e-5),
        "norm": "rms",
        "mlp": "swiglu",
        "tie_embeddings": config.get("tie_word_embeddings", False),
        "vocab_size": _vocabulary(name, config, shape),
    }
    return _fill(Transformer(**(shape | taken)), folder, LLAMA_NAMES)


def read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise InputMissing(f"{folder}: no readable config.json ({type(error).__name__})") from None
    if "auto_map" in config:
        raise Refused(f"{folder}/config.json: asks to run code of its own (auto_map)")
    return config


def _vocabulary(name: str, config: dict[str, Any], shape: dict[str, Any]) -> int:
    if shape["vocab_size"] > config["vocab_size"]:
        raise ConfigFault(
            f"model.pretrained={name}: knows {config['vocab_size']} tokens, the tokenizer has {shape['vocab_size']}"
        )
    return config["vocab_size"]


def _fill(model: nn.Module, folder: Path, names: list[tuple[str, Any]]) -> Any:
    """Loads every weight of the model, or raises DataFault with the names that are missing or of another shape."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        arrays: Any = mx.load(str(path))
        for theirs, array in arrays.items():
            if not LEFT_OUT.search(theirs):
                found[_ours(theirs, names)] = array.astype(mx.float32)
    if not found:
        raise InputMissing(f"{folder}: no safetensors file (pickled weights are not read)")
    leaves: list[tuple[str, Any]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    wanted = {path: leaf.shape for path, leaf in leaves}
    faults = [f"{path} missing" for path in wanted if path not in found]
    faults += [f"{path} unexpected" for path in found if path not in wanted]
    faults += [
        f"{path} of shape {found[path].shape} instead of {shape}"
        for path, shape in wanted.items()
        if path in found and found[path].shape != shape
    ]
    if faults:
        raise DataFault(f"{folder}: weights do not fit: {'; '.join(faults[:4])}{' ...' if len(faults) > 4 else ''}")
    model.load_weights(list(found.items()))
    mx.eval(model.parameters())
    return model


def _ours(name: str, names: list[tuple[str, Any]]) -> str:
    for pattern, ours in names:
        name = re.sub(pattern, ours, name)
    return name
