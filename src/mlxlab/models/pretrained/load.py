"""Pretrained models by name (folder, hub id, GGUF file), and their shape as constructor arguments of our backbones."""

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Required, TypedDict, cast

from mlxlab.constraints import Positive, Size
from mlxlab.data.tokenizers.gguf import chat_template_from, tokenizer_from
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.errors import ConfigError, DataError, InputNotFoundError, NotAllowedError, ServiceUnavailableError
from mlxlab.files.atomic import write_atomic
from mlxlab.files.untrusted import ShapeError, read_json, validate
from mlxlab.models.layers import ACTIVATIONS, GATES
from mlxlab.models.pretrained.gguf import gguf_config, read_gguf

Node = Mapping[str, Any]  # a `model` node of the configuration
Shape = dict[str, object]
SIZES = {"num_hidden_layers": "num_layers", "num_attention_heads": "num_heads"}  # keys of a config.json -> arguments
SIZES |= {key: key for key in ("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings")}


class PretrainedConfig(TypedDict, total=False):
    """The keys of a config.json that are read."""

    model_type: str
    vocab_size: Required[Size]
    hidden_size: Required[Size]
    num_hidden_layers: Required[Size]
    num_attention_heads: Required[Size]
    num_key_value_heads: Size | None
    head_dim: Size | None
    intermediate_size: Required[Size]
    max_position_embeddings: Size
    hidden_act: str
    layer_norm_eps: Positive
    rms_norm_eps: Positive
    rope_theta: Positive | None
    rope_parameters: dict[str, object] | None
    rope_scaling: dict[str, object] | None
    tie_word_embeddings: bool
    position_embedding_type: str
    type_vocab_size: int
    attention_bias: bool | None
    mlp_bias: bool | None
    sliding_window: int | None


def resolve(name: str, key: str = "model.pretrained") -> Path:
    """The folder or GGUF file of a pretrained model, the value of a `key`; a hub id is downloaded.

    Raises:
        InputNotFoundError: no such folder, and not a hub id.
        ServiceUnavailableError: the hub cannot be reached, or its client is not installed.
    """
    path, title = Path(os.path.expanduser(name)), f"{key}={name}"
    if os.path.isdir(path) or path.suffix == ".gguf":
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise InputNotFoundError(f"{title}: no such folder, and not a hub id (owner/name)")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ServiceUnavailableError(f"{title}: no such folder; for hub ids install mlxlab[hub]") from None
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.jinja", "*.safetensors", "*.txt"]))
    except Exception as error:  # the hub's client raises whatever its transport raises
        raise ServiceUnavailableError(f"{title}: download from the hub failed ({type(error).__name__})") from None


def tokenizer_dir(name: str, cache: Path) -> Path:
    """The folder with the tokenizer.json of a pretrained model, and its chat template if it has one.

    Those of a GGUF file are extracted below `cache`.
    """
    path = resolve(name)
    if path.suffix != ".gguf":
        return path
    metadata = read_gguf(path)[1]
    tokenizer = Tokenizer(tokenizer_from(metadata, path))
    files = {"tokenizer.json": tokenizer.inner.to_str(), **chat_template_from(metadata)}
    folder = cache / "pretrained" / hashlib.sha256(repr(files).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        write_atomic(folder / file, text)
    return folder


def pretrained_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a folder or GGUF file."""
    return Tokenizer(tokenizer_from(read_gguf(path)[1], path)) if path.suffix == ".gguf" else load_tokenizer(path)


def read_config(path: Path) -> PretrainedConfig:
    """The folder's config.json, or the same keys from a GGUF file.

    Raises:
        InputNotFoundError: no config.json. DataError: it is damaged. NotAllowedError: it wants to run its own code.
        ConfigError: an unsupported GGUF file.
    """
    if path.suffix == ".gguf":
        file, content = path, gguf_config(path)
    else:
        # Resolved: the files of a downloaded snapshot are symbolic links.
        file = (path / "config.json").resolve()
        content = read_json(file, dict[str, object])
    if "auto_map" in content:
        raise NotAllowedError(f"{file}: asks to run code of its own (auto_map)")
    try:
        known = {key: value for key, value in content.items() if key in PretrainedConfig.__annotations__}
        return cast(PretrainedConfig, validate(known, PretrainedConfig))
    except ShapeError as error:
        raise DataError(f"{file}: {error}") from None


def read_shape(path: Path, node: Node, vocab_size: int) -> Shape:
    """Constructor arguments of the backbone of `node` that give it the shape of the model at `path`.

    The model may have more tokens than the `vocab_size` of the tokenizer in use, never fewer.

    Raises:
        InputNotFoundError, DataError, NotAllowedError: as `read_config`.
        ConfigError: an unsupported architecture, or an option of `node` that the architecture contradicts.
    """
    target, title = str(node["_target_"]), f"model.pretrained={path}"
    if target not in FAMILIES:
        raise ConfigError(f"{title}: {target} cannot load pretrained weights")
    config, (model_types, family_shape) = read_config(path), FAMILIES[target]
    model_type = config.get("model_type", model_types[0])
    if model_type not in model_types:
        option, supported = target.split(".")[-2], " and ".join(model_types)
        raise ConfigError(f"{title}: is of type {model_type}; model={option} loads {supported}")
    if vocab_size > config["vocab_size"]:
        raise ConfigError(f"{title}: has {config['vocab_size']} tokens, fewer than the tokenizer's {vocab_size}")
    shape: Shape = {SIZES[key]: value for key, value in config.items() if key in SIZES}
    return shape | family_shape(config, node, title)


def target_of(path: Path) -> str:
    """The `_target_` of the backbone for the model at `path`; ConfigError for an unsupported architecture."""
    model_type = read_config(path).get("model_type")
    for target, (model_types, _) in FAMILIES.items():
        if model_type in model_types:
            return target
    raise ConfigError(f"{path}: models of type {model_type} are not supported")


def _bert_shape(config: PretrainedConfig, node: Node, title: str) -> Shape:
    options: Shape = {"position_embedding": "learned", "pre_norm": False}
    if any(node.get(key, value) != value for key, value in options.items()) or node.get("mlp_type") in GATES:
        raise ConfigError(
            f"{title}: BERT has model.position_embedding=learned, model.pre_norm=false and no gated model.mlp_type"
        )
    _require(config, title, position_embedding_type=["absolute"], type_vocab_size=[2], hidden_act=list(ACTIVATIONS))
    return options | {"mlp_type": config.get("hidden_act", "gelu"), "norm_eps": config.get("layer_norm_eps", 1e-12)}


def _llama_shape(config: PretrainedConfig, node: Node, title: str) -> Shape:
    options: Shape = {"norm_type": "rms", "mlp_type": "swiglu", "position_embedding": "rope"}
    if any(node.get(key, value) != value for key, value in options.items()):
        required = ", ".join(f"model.{key}={value}" for key, value in options.items())
        raise ConfigError(f"{title}: Llama has {required}")
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    _require(config, title, attention_bias=[False], mlp_bias=[False], sliding_window=[None])
    _require(config, title, hidden_act=["silu"], head_dim=[head_dim])
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}  # newer files have the base in it
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type != "default":
        raise ConfigError(f"{title}: rotary positions of type {rope_type} are not supported")
    theta = rope.get("rope_theta") or config.get("rope_theta") or 10000.0
    if not isinstance(theta, int | float) or theta <= 0:
        raise ConfigError(f"{title}: rope_theta is {theta}, expected a number above 0")
    return options | {
        "num_kv_heads": config.get("num_key_value_heads"),
        "rope_theta": float(theta),
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "tie_embeddings": config.get("tie_word_embeddings", False),
    }


def _require(config: PretrainedConfig, title: str, **supported: list[object]) -> None:
    """ConfigError where a key has another value than these; null and false are as if it were absent."""
    for key, values in supported.items():
        if (value := config.get(key)) not in (None, False, *values):
            raise ConfigError(f"{title}: {key} is {value}, only {' or '.join(map(str, values))} is supported")


FAMILIES: dict[str, tuple[tuple[str, ...], Callable[[PretrainedConfig, Node, str], Shape]]] = {
    # `_target_` of a backbone -> the `model_type`s whose weights it can take, and how to read the options of its own
    "mlxlab.models.bert.Bert": (("bert",), _bert_shape),
    "mlxlab.models.cnn_hybrid.CnnHybrid": (("bert",), _bert_shape),
    "mlxlab.models.transformer.Transformer": (("llama", "mistral"), _llama_shape),
}
