"""Writes a decoder as a GGUF file of Llama type, with its tokenizer: for llama.cpp and programs that use it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import mlx.core as mx
from tokenizers import pre_tokenizers

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.data.tokenizers.tokenizer import Tokenizer
from mlxlab.errors import ConfigError
from mlxlab.files.atomic import refuse_existing, remove_leftovers, temporary_name
from mlxlab.models.interop.counterpart import (
    Counterpart,
    TrainedModel,
    counterpart_of,
    plain_weights,
    publish,
    refuse_unwritable,
)
from mlxlab.models.pretrained.gguf import HYPERPARAMETERS, PARTS
from mlxlab.models.pretrained.gguf_tokenizer import CONTROL, NORMAL, PRE_TOKENIZERS, UNUSED, USER

FILE_TYPES = {"float32": 0, "float16": 1}

Values = dict[str, mx.array | str | list[str]]  # metadata in the types that MLX writes


def export_gguf(
    trained: TrainedModel, out: Path, name: str, dtype: Literal["float32", "float16"] = "float32"
) -> None:
    """Writes weights, sizes, tokenizer and chat template into one file, as a whole or not at all.

    Args:
        out: the file; it must not exist.
        name: of the model, in the file.
        dtype: of matrices; norms are float32, which llama.cpp demands.

    Raises:
        ConfigError: the model is not of Llama type, or the file has no word for its tokenizer.
        CannotCreateError: `out` exists. WriteError: it cannot be written.
    """
    refuse_existing(out)
    counterpart = counterpart_of(trained)
    _check_type(counterpart)
    metadata = _sizes(counterpart.config, trained.vocab_size) | _tokenizer(trained)
    metadata |= {"general.name": name, "general.architecture": "llama"}
    metadata["general.file_type"] = mx.array(FILE_TYPES[dtype], mx.uint32)
    _write(out, _weights(trained, counterpart, dtype), metadata)


def _check_type(counterpart: Counterpart) -> None:
    config = counterpart.config
    name = counterpart.name
    if counterpart.needs_mlx_lm:
        raise ConfigError("model=mlx_lm: expected model=transformer for a GGUF file")
    if name != "LlamaForCausalLM":
        raise ConfigError(
            f"model: would be a {name}; expected a LlamaForCausalLM, the only one written to GGUF files"
        )
    if config["attention_bias"]:
        raise ConfigError("model.attention_bias=all: expected none for a GGUF file")
    if "rope_scaling" in config:
        raise ConfigError("model.rope_scaling: expected null for a GGUF file")
    if config["head_dim"] * config["num_attention_heads"] != config["hidden_size"]:  # type: ignore[operator]
        raise ConfigError(
            f"model.head_dim={config['head_dim']}: expected hidden_size / num_heads for a GGUF file"
        )


def _weights(trained: TrainedModel, counterpart: Counterpart, dtype: str) -> Arrays:
    """The arrays as such files have them: the rows of queries and keys are interleaved."""
    weights = plain_weights(trained)
    for key, role in (("num_attention_heads", "query"), ("num_key_value_heads", "key")):
        heads = counterpart.config[key]
        for path, array in weights.items():
            if path.endswith(f".attention.{role}.weight"):
                halves = array.reshape(heads, 2, -1, array.shape[-1])
                weights[path] = halves.swapaxes(1, 2).reshape(array.shape)

    def rename(path: str) -> str:
        name = f".{counterpart.published_name(path)}."
        for part, published_part in PARTS.items():
            name = name.replace(f".{published_part}.", f".{part}.")
        return name.strip(".")

    return publish(weights, rename, dtype, lambda name: not name.endswith("norm.weight"))


def _sizes(config: Mapping[str, object], vocab_size: int) -> Values:
    values: Values = {"llama.vocab_size": mx.array(vocab_size, mx.uint32)}
    for key, name in HYPERPARAMETERS.items():
        value = config.get(key)
        if isinstance(value, int):
            values[f"llama.{name}"] = mx.array(value, mx.uint32)
        elif isinstance(value, float):
            values[f"llama.{name}"] = mx.array(value, mx.float32)
    return values


def _tokenizer(trained: TrainedModel) -> Values:
    """The tokenizer; ConfigError unless it is a byte-level BPE with a pre-tokenizer that has a name in such files."""
    tokenizer = trained.tokenizer
    file = json.loads(tokenizer.inner.to_str())
    pieces, kinds = _tokens(tokenizer, trained.vocab_size)
    merges = [
        merge if isinstance(merge, str) else " ".join(merge) for merge in file["model"]["merges"]
    ]
    values: Values = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _pre_tokenizer(file),
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.token_type": mx.array(kinds, mx.int32),
        "tokenizer.ggml.merges": merges,
    }
    ids = _special_ids(trained)
    values |= {
        f"tokenizer.ggml.{role}_token_id": mx.array(token, mx.uint32) for role, token in ids.items()
    }
    values["tokenizer.ggml.add_bos_token"] = mx.array(bool(trained.start))
    values["tokenizer.ggml.add_eos_token"] = mx.array(False)
    if trained.template:
        values["tokenizer.chat_template"] = trained.template.source
    return values


def _special_ids(trained: TrainedModel) -> dict[str, int]:
    tokenizer = trained.tokenizer
    template = trained.template
    eos = tokenizer.eos_id
    if template:
        eos = tokenizer.inner.token_to_id(template.eos_token)
    ids = {"bos": trained.start_id, "eos": eos, "padding": tokenizer.pad_id}
    return {role: token for role, token in ids.items() if token is not None}


def _tokens(tokenizer: Tokenizer, vocab_size: int) -> tuple[list[str], list[int]]:
    """Text and kind of each row of the embedding."""
    added = tokenizer.inner.get_added_tokens_decoder()
    pieces = []
    kinds = []
    for token in range(vocab_size):
        piece = tokenizer.inner.id_to_token(token)
        kind = NORMAL
        if piece is None:
            piece = f"[unused{token}]"
            kind = UNUSED
        elif token in added:
            kind = USER
            if added[token].special:
                kind = CONTROL
        pieces.append(piece)
        kinds.append(kind)
    return pieces, kinds


def _pre_tokenizer(file: dict[str, dict[str, object] | None]) -> str:
    """The name of the tokenizer's pre-tokenizer in GGUF files."""
    if (file["decoder"] or {}).get("type") == "ByteLevel" and file["normalizer"] is None:
        written = _steps(file["pre_tokenizer"])
        for name, steps in PRE_TOKENIZERS.items():
            if written == _steps(json.loads(pre_tokenizers.Sequence(steps).__getstate__())):
                return name
    expected = " or ".join(PRE_TOKENIZERS)
    raise ConfigError(
        f"data.tokenizer: expected a byte-level BPE with the pre-tokenizer of {expected} for a GGUF file"
    )


def _steps(written: dict[str, object] | None) -> list[dict[str, object]]:
    """The steps of a pre-tokenizer, without what does not change the tokens."""
    steps = (written or {}).get("pretokenizers", [written or {}])
    assert isinstance(steps, list)
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]


def _write(out: Path, arrays: Arrays, metadata: Values) -> None:
    temporary = temporary_name(out).with_suffix(".gguf")  # MLX appends it otherwise
    with refuse_unwritable(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(out.parent)
        try:
            mx.save_gguf(str(temporary), arrays, metadata)
            temporary.rename(out)
        finally:
            temporary.unlink(missing_ok=True)
