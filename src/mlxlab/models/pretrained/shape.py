"""The shape of a pretrained model, from its config.json or GGUF header, as constructor arguments of our backbones."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxlab.errors import ConfigError, DataError, InputNotFoundError, NotAllowedError
from mlxlab.files.untrusted import read_json
from mlxlab.models.pretrained.gguf import config_of

Node = Mapping[str, Any]  # a `model` node of the configuration


class PretrainedConfig(dict[str, Any]):
    """The contents of a config.json; a missing key is a DataError that names the file."""

    path: Path

    def __missing__(self, key: str) -> Any:
        raise DataError(f"{config_path(self.path)}: has no {key}")

    def require(self, key: str, expected: object) -> None:
        """ConfigError unless `key` is absent, empty or `expected`."""
        if self.get(key) not in (None, False, expected):
            raise self._unsupported(key, str(expected))

    def one_of(self, key: str, supported: list[str]) -> str:
        """The value of `key`, by default the first supported one; ConfigError for any other."""
        value = self.get(key, supported[0])
        if value not in supported:
            raise self._unsupported(key, " or ".join(supported))
        return str(value)

    def _unsupported(self, key: str, expected: str) -> ConfigError:
        return ConfigError(f"model.pretrained={self.path}: {key} is {self[key]}, only {expected} is supported")


def _bert_shape(config: PretrainedConfig, node: Node) -> dict[str, Any]:
    plain = (node.get("position_embedding", "learned"), node.get("pre_norm", False)) == ("learned", False)
    if not plain or node.get("mlp_type") in ("geglu", "swiglu"):
        raise ConfigError(
            f"model.pretrained={config.path}: BERT has model.position_embedding=learned, model.pre_norm=false and "
            "no gated model.mlp_type"
        )
    config.require("position_embedding_type", "absolute")
    config.require("type_vocab_size", 2)
    return {
        "max_position_embeddings": config["max_position_embeddings"],
        "mlp_type": config.one_of("hidden_act", ["gelu", "relu", "silu"]),
        "norm_eps": config.get("layer_norm_eps", 1e-12),
        "position_embedding": "learned",
        "pre_norm": False,
    }


def _llama_shape(config: PretrainedConfig, node: Node) -> dict[str, Any]:
    fixed = {"norm_type": "rms", "mlp_type": "swiglu", "position_embedding": "rope"}
    if any(node.get(key, value) != value for key, value in fixed.items()):
        required = ", ".join(f"model.{key}={value}" for key, value in fixed.items())
        raise ConfigError(f"model.pretrained={config.path}: Llama has {required}")
    for key in ("attention_bias", "mlp_bias", "sliding_window"):
        config.require(key, None)
    config.one_of("hidden_act", ["silu"])
    config.require("head_dim", config["hidden_size"] // config["num_attention_heads"])
    context = {key: config[key] for key in ("max_position_embeddings",) if key in config}
    return (
        fixed
        | context
        | {
            "num_kv_heads": config.get("num_key_value_heads"),
            "rope_theta": _rope_theta(config),
            "norm_eps": config.get("rms_norm_eps", 1e-6),
            "tie_embeddings": config.get("tie_word_embeddings", False),
        }
    )


def _rope_theta(config: PretrainedConfig) -> float:
    """The base of the rotary frequencies; newer files have it among `rope_parameters`."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type != "default":
        raise ConfigError(f"model.pretrained={config.path}: rotary positions of type {rope_type} are not supported")
    return float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))


@dataclass(frozen=True)
class PretrainedFamily:
    """A family of published models, and how to read its shape."""

    model_types: tuple[str, ...]
    read_shape: Callable[[PretrainedConfig, Node], dict[str, Any]]


BERT = PretrainedFamily(("bert",), _bert_shape)
LLAMA = PretrainedFamily(("llama", "mistral"), _llama_shape)
FAMILIES = {  # by the `_target_` of a backbone that can take its weights
    "mlxlab.models.bert.Bert": BERT,
    "mlxlab.models.cnn_hybrid.CnnHybrid": BERT,
    "mlxlab.models.transformer.Transformer": LLAMA,
}


def read_shape(path: Path, node: Node, vocab_size: int) -> dict[str, Any]:
    """Constructor arguments of the backbone of `node` that give it the shape of the model at `path`.

    Args:
        path: a folder with a config.json, or a GGUF file.
        vocab_size: tokens of the tokenizer in use; the model may have more, never fewer.

    Raises:
        InputNotFoundError: no config.json. DataError: it is damaged. NotAllowedError: it wants to run its own code.
        ConfigError: an unsupported architecture, or an option of `node` that the architecture contradicts.
    """
    target = str(node["_target_"])
    family, option = FAMILIES.get(target), target.split(".")[-2]
    if family is None:
        raise ConfigError(f"model.pretrained={path}: {target} cannot load pretrained weights")
    config = read_config(path)
    model_type = config.get("model_type", family.model_types[0])
    if model_type not in family.model_types:
        supported = " and ".join(family.model_types)
        raise ConfigError(f"model.pretrained={path}: is of type {model_type}; model={option} loads {supported}")
    shape = {
        "hidden_size": config["hidden_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "intermediate_size": config["intermediate_size"],
        "vocab_size": config["vocab_size"],
    } | family.read_shape(config, node)
    if vocab_size > shape["vocab_size"]:
        raise ConfigError(
            f"model.pretrained={path}: has {shape['vocab_size']} tokens, fewer than the tokenizer's {vocab_size}"
        )
    return shape


def target_of(path: Path) -> str:
    """The `_target_` of the backbone for the pretrained model at `path`.

    Raises:
        ConfigError: an unsupported architecture; others as `read_shape`.
    """
    model_type = read_config(path)["model_type"]
    for target, family in FAMILIES.items():
        if model_type in family.model_types:
            return target
    raise ConfigError(f"{path}: models of type {model_type} are not supported")


def read_config(path: Path) -> PretrainedConfig:
    """The folder's config.json, or the same keys from a GGUF file."""
    if path.suffix == ".gguf":
        return _config(config_of(path), path)
    if not (path / "config.json").exists():
        raise InputNotFoundError(f"{path}: no config.json")
    # Resolved: the files of a downloaded snapshot are symbolic links.
    content = read_json((path / "config.json").resolve(), dict[str, Any])
    if "auto_map" in content:
        raise NotAllowedError(f"{path / 'config.json'}: asks to run code of its own (auto_map)")
    return _config(content, path)


def _config(content: dict[str, Any], path: Path) -> PretrainedConfig:
    config = PretrainedConfig(content)
    config.path = path
    return config


def config_path(path: Path) -> Path:
    """The file that the shape is read from."""
    return path if path.suffix == ".gguf" else path / "config.json"
