"""GGUF files of Llama type: weights, shape and tokenizer, from what MLX's reader gives."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxlab.errors import ConfigError, DataError, InputNotFoundError

GROUP = 32  # numbers that share a scale, in every block type that MLX reads
MAGIC = b"GGUF"
SHAPE = {  # as a config.json calls it -> behind the architecture's name in the file
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "head_dim": "rope.dimension_count",
}
OPTIONAL = ("rope_theta", "head_dim", "num_key_value_heads")


def read_gguf(path: Path) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """Arrays by name, unevaluated, and the metadata.

    Raises:
        InputNotFoundError: it cannot be read. DataError: it is not a valid GGUF file.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise InputNotFoundError(f"{path}: {error.strerror}") from None
    if head != MAGIC:
        raise DataError(f"{path}: not a GGUF file (it begins with {head!r})")
    try:
        read: Any = mx.load(str(path), format="gguf", return_metadata=True)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path}: not a valid GGUF file ({str(error).splitlines()[0][:200]})") from None
    arrays, metadata = read
    return arrays, {key: _plain(value) for key, value in metadata.items()}


def config_of(path: Path) -> dict[str, Any]:
    """The metadata under the keys of a config.json.

    Raises:
        ConfigError: an unsupported architecture or rotary positions. DataError: a size is missing or invalid.
    """
    arrays, metadata = read_gguf(path)
    kind = metadata.get("general.architecture")
    if kind != "llama":
        raise ConfigError(f"model.pretrained={path}: is of type {kind}; of GGUF files only llama is supported")
    if metadata.get("llama.rope.scaling.type", "none") != "none" or "rope_freqs.weight" in arrays:
        raise ConfigError(f"model.pretrained={path}: scaled rotary positions are not supported")
    hyperparameters = {name: metadata[f"llama.{key}"] for name, key in SHAPE.items() if f"llama.{key}" in metadata}
    if lacking := [SHAPE[name] for name in SHAPE if name not in hyperparameters and name not in OPTIONAL]:
        raise DataError(f"{path}: has no llama.{lacking[0]}")
    for name, value in hyperparameters.items():
        is_integer = name not in ("rms_norm_eps", "rope_theta")
        if isinstance(value, bool) or not isinstance(value, int if is_integer else int | float) or not value > 0:
            raise DataError(f"{path}: llama.{SHAPE[name]} is {str(value)[:40]}, expected a number above 0")
    size, heads = hyperparameters["hidden_size"], hyperparameters["num_attention_heads"]
    if size % heads:
        raise DataError(f"{path}: {heads} heads do not divide {size} numbers")
    return hyperparameters | {
        "model_type": "llama",
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in arrays,
        "vocab_size": len(metadata.get("tokenizer.ggml.tokens", ())) or metadata.get("llama.vocab_size"),
    }


def weights_of(path: Path) -> list[tuple[str, mx.array]]:
    """Every weight under its name in the file: dequantized to float32, queries and keys in Hugging Face's order."""
    arrays, metadata = read_gguf(path)
    heads = metadata["llama.attention.head_count"]
    turned = {"attn_q": heads, "attn_k": metadata.get("llama.attention.head_count_kv", heads)}
    return [(name, _in_order(name, array, turned)) for name, array in _dequantize(arrays)]


def _dequantize(arrays: dict[str, mx.array]) -> Iterator[tuple[str, mx.array]]:
    for name, array in arrays.items():
        stem, _, kind = name.rpartition(".")
        if kind in ("scales", "biases") and f"{stem}.weight" in arrays:
            continue
        if f"{stem}.scales" in arrays:
            # Scales in float16, as they come, would cost four digits.
            scales, biases = (arrays[f"{stem}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
            bits = array.shape[-1] * 32 // (scales.shape[-1] * GROUP)
            array = mx.dequantize(array, scales, biases, group_size=GROUP, bits=bits)
        yield name, array


def _in_order(name: str, array: mx.array, turned: dict[str, int]) -> mx.array:
    """Undoes the interleaving of a head's rows, which GGUF files have for rotary positions on adjacent pairs."""
    hyperparameters = re.search(r"\.(attn_[qk])\.weight$", name)
    if not hyperparameters:
        return array
    return array.reshape(turned[hyperparameters[1]], -1, 2, array.shape[-1]).swapaxes(1, 2).reshape(array.shape)


def _plain(value: Any) -> Any:
    """Python numbers and lists; float32 numbers are rounded to 7 digits, to what was written."""
    if not isinstance(value, mx.array):
        return value
    listed: Any = value.tolist()
    return float(f"{listed:.7g}") if isinstance(listed, float) else listed
