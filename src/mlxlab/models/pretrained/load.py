"""Models of others: Hugging Face folders of BERT and Llama type, by path or hub id, and GGUF files of Llama type."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from mlxlab.errors import ConfigError, DataError, InputNotFoundError, NotAllowedError, ServiceUnavailableError
from mlxlab.models.bert import Bert
from mlxlab.models.pretrained.gguf import config_of, read_gguf
from mlxlab.models.pretrained.weights import BERT_NAMES, GGUF_NAMES, LLAMA_NAMES, load_weights
from mlxlab.models.transformer import Transformer


def resolve(name: str) -> Path:
    """The folder (or GGUF file) of a pretrained model: a local one, else a snapshot from the hub.

    Raises:
        InputNotFoundError: it is not there.
        ServiceUnavailableError: the hub, or the package that asks it, cannot be had.
    """
    folder = Path(name).expanduser()
    if folder.is_dir() or folder.suffix == ".gguf":
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name) or name.startswith("."):
        raise InputNotFoundError(f"model.pretrained={name}: no such folder, and no hub id (owner/name)")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ServiceUnavailableError(
            f"model.pretrained={name}: no such folder; for hub ids install mlxlab[hub]"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except Exception as error:  # the hub's client raises what its transports raise
        raise ServiceUnavailableError(
            f"model.pretrained={name}: the hub did not give it ({type(error).__name__})"
        ) from None


def save_config(name: str, folder: Path) -> None:
    """Writes what says the model's shape: `folder` can then stand for it, with `weights=False`."""
    found = resolve(name)
    if found.suffix == ".gguf":
        (folder / "config.json").write_text(json.dumps(dict(read_config(found)), indent=1) + "\n", encoding="utf-8")
    else:
        shutil.copyfile(found / "config.json", folder / "config.json")


def tokenizer_dir(name: str, cache: Path) -> Path:
    """The folder with the tokenizer.json of a pretrained model; that of a GGUF file is made below `cache`."""
    found = resolve(name)
    if found.suffix != ".gguf":
        return found
    tokenizer = gguf_tokenizer(found)
    stat = found.stat()
    key = hashlib.sha256(f"{found.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
    folder = cache / "pretrained" / key
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"tokenizer.{os.getpid()}.part"
    part.write_text(tokenizer.to_str(), encoding="utf-8")
    part.rename(folder / "tokenizer.json")
    return folder


def gguf_tokenizer(path: Path) -> Any:
    """The tokenizer inside a GGUF file (a `tokenizers.Tokenizer`)."""
    from mlxlab.data.tokenizers.gguf import tokenizer_from

    return tokenizer_from(read_gguf(path)[1], path)


def load_bert(name: str, shape: dict[str, Any], *, weights: bool = True) -> Bert:
    """A BERT of the folder's shape with its weights; `shape` gives what a config.json does not say.

    Without `weights` they are random: a run that goes on has its own.

    Raises:
        InputNotFoundError: no folder, config.json or weights.
        ConfigError: the folder's architecture, or a switch of ours, is not that of BERT.
        DataError: weights do not fit.
    """
    folder = resolve(name)
    config = read_config(folder)
    _of_type(config, {"bert"}, "bert")
    if shape.get("rope_base") is not None or shape.get("pre_norm") or shape.get("mlp") in ("geglu", "swiglu"):
        raise ConfigError(
            f"model.pretrained={name}: BERT has model.positions=learned, model.pre_norm=false, a plain mlp"
        )
    config.same("position_embedding_type", "absolute")
    config.same("type_vocab_size", 2)
    taken = {
        "width": config["hidden_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "feed_forward": config["intermediate_size"],
        "max_length": config["max_position_embeddings"],
        "mlp": config.one_of("hidden_act", ["gelu", "relu", "silu"]),
        "eps": config.get("layer_norm_eps", 1e-12),
        "vocab_size": _vocabulary(config, shape),
    }
    model = Bert(**(shape | taken | {"rope_base": None, "pre_norm": False}))
    return load_weights(model, folder, BERT_NAMES) if weights else model


def load_llama(name: str, shape: dict[str, Any], *, weights: bool = True) -> Transformer:
    """A decoder of the folder's shape with its weights, and those of its head if that is not tied; as `load_bert`."""
    folder = resolve(name)
    config = read_config(folder)
    _of_type(config, {"llama", "mistral"}, "transformer")
    if shape.get("norm", "rms") != "rms" or shape.get("mlp", "swiglu") != "swiglu" or shape.get("rope_base", 1) is None:
        raise ConfigError(f"model.pretrained={name}: Llama has model.norm=rms, model.mlp=swiglu, model.positions=rope")
    for key in ("attention_bias", "mlp_bias", "sliding_window"):
        config.same(key, None)
    config.one_of("hidden_act", ["silu"])
    config.same("head_dim", config["hidden_size"] // config["num_attention_heads"])
    tied = config.get("tie_word_embeddings", False)
    taken = {
        "width": config["hidden_size"],
        "num_layers": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "num_kv_heads": config.get("num_key_value_heads"),
        "feed_forward": config["intermediate_size"],
        "rope_base": _rope_base(config),
        "eps": config.get("rms_norm_eps", 1e-6),
        "norm": "rms",
        "mlp": "swiglu",
        "tie_embeddings": tied,
        "vocab_size": _vocabulary(config, shape),
    }
    if "max_position_embeddings" in config:
        taken["max_length"] = config["max_position_embeddings"]
    model = Transformer(**(shape | taken))
    if not weights:
        return model
    load_weights(model, folder, GGUF_NAMES if folder.suffix == ".gguf" else LLAMA_NAMES)
    if not tied and "out.weight" not in model._head:
        raise DataError(f"{folder}: weights do not fit: lm_head.weight is missing, and the head is not tied")
    return model


class Config(dict[str, Any]):
    """A config.json; what it lacks, or has otherwise than we can, is a fault that names it."""

    folder: Path

    def __missing__(self, key: str) -> Any:
        raise DataError(f"{config_name(self.folder)}: has no {key}")

    def same(self, key: str, expected: Any) -> None:
        """ConfigError unless `key` is absent, empty or `expected`."""
        if self.get(key) not in (None, False, expected):
            raise self.other(key, str(expected))

    def one_of(self, key: str, known: list[str]) -> str:
        """The value of `key`, by default the first that is known."""
        value = self.get(key, known[0])
        if value not in known:
            raise self.other(key, " or ".join(known))
        return value

    def other(self, key: str, expected: str) -> ConfigError:
        return ConfigError(f"model.pretrained={self.folder}: {key} is {self[key]}, only {expected} is known here")


def read_config(folder: Path) -> Config:
    """The folder's config.json, or what says the same in a GGUF file; Refused where it wants to run code of its own."""
    if folder.suffix == ".gguf":
        return _config(config_of(folder), folder)
    try:
        read = json.loads((folder / "config.json").read_text())
    except OSError:
        raise InputNotFoundError(f"{folder}: no config.json") from None
    except ValueError:
        raise DataError(f"{folder / 'config.json'}: not readable as JSON") from None
    if not isinstance(read, dict):
        raise DataError(f"{folder / 'config.json'}: expected an object")
    if "auto_map" in read:
        raise NotAllowedError(f"{folder / 'config.json'}: asks to run code of its own (auto_map)")
    return _config(read, folder)


def _config(read: dict[str, Any], folder: Path) -> Config:
    config = Config(read)
    config.folder = folder
    return config


def config_name(folder: Path) -> Path:
    """The file that says the shape."""
    return folder if folder.suffix == ".gguf" else folder / "config.json"


def _of_type(config: Config, types: set[str], model: str) -> None:
    if config.get("model_type", min(types)) not in types:
        raise ConfigError(
            f"model.pretrained={config.folder}: is of type {config['model_type']}; "
            f"model={model} loads {' and '.join(sorted(types))}"
        )


def _rope_base(config: Config) -> float:
    """The base of the rotary frequencies; newer files have it among `rope_parameters`."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ConfigError(f"model.pretrained={config.folder}: rotary positions of type {kind} are not known here")
    return float(rope.get("rope_theta", config.get("rope_theta", 10000.0)))


def _vocabulary(config: Config, shape: dict[str, Any]) -> int:
    known, used = config["vocab_size"], shape["vocab_size"]
    if used > known:
        raise ConfigError(f"model.pretrained={config.folder}: knows {known} tokens, the tokenizer has {used}")
    return known
