"""GGUF files of Llama type: weights and header, from what MLX's reader gives."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import mlx.core as mx
import numpy as np

from mlxlab.errors import ConfigError, DataError
from mlxlab.models.pretrained.gguf_header import BFLOAT16, Tensor, read_header

GROUP = 32  # numbers that share a scale, in every block type that MLX reads
HYPERPARAMETERS = {  # key of a config.json -> what follows the architecture's name in the file
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
PARTS = {  # parts of names in the file -> those in Hugging Face's layout of Llama
    "token_embd": "model.embed_tokens",
    "blk": "model.layers",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "output_norm": "model.norm",
    "output": "lm_head",
}
Metadata = dict[str, object]  # numbers, text and lists of them


def read_gguf(path: Path) -> tuple[dict[str, mx.array], Metadata]:
    """Arrays by name, unevaluated, and the metadata; InputNotFoundError or DataError if the file cannot be read."""
    path = path.resolve()  # the files of a downloaded snapshot are symbolic links
    tensors = read_header(path)
    try:
        loaded = mx.load(str(path), format="gguf", return_metadata=True)
    except (RuntimeError, ValueError) as error:
        raise DataError(
            f"{path}: not a valid GGUF file ({str(error).splitlines()[0][:200]})"
        ) from None
    arrays, metadata = cast(tuple[dict[str, mx.array], Metadata], loaded)
    arrays |= {
        tensor.name: _bfloat16(path, tensor) for tensor in tensors if tensor.kind == BFLOAT16
    }
    return arrays, {key: _to_python(value) for key, value in metadata.items()}


def _bfloat16(path: Path, tensor: Tensor) -> mx.array:
    """Reads bfloat16 unchanged: MLX's reader makes float16 of it, where small numbers are 0 and large ones inf."""
    data = np.memmap(
        path, np.dtype("<u2"), mode="r", offset=tensor.offset, shape=tuple(reversed(tensor.shape))
    )
    return mx.array(data).view(mx.bfloat16)


def _to_python(value: object) -> object:
    """Python numbers and lists; float32 numbers are rounded to 7 digits, to what was written."""
    number = value.tolist() if isinstance(value, mx.array) else value
    return float(f"{number:.7g}") if isinstance(number, float) else number


def gguf_config(path: Path) -> Metadata:
    """The metadata under the keys of a config.json, unchecked; ConfigError for an unsupported architecture."""
    arrays, metadata = read_gguf(path)
    kind = metadata.get("general.architecture")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if kind != "llama":
        raise ConfigError(
            f"model.pretrained={path}: is of type {kind}; of GGUF files only llama is supported"
        )
    if metadata.get("llama.rope.scaling.type", "none") != "none" or "rope_freqs.weight" in arrays:
        raise ConfigError(f"model.pretrained={path}: scaled rotary positions are not supported")
    sizes = {
        name: metadata[f"llama.{key}"]
        for name, key in HYPERPARAMETERS.items()
        if f"llama.{key}" in metadata
    }
    return sizes | {
        "model_type": "llama",
        "tie_word_embeddings": "output.weight" not in arrays,
        "vocab_size": len(tokens) if isinstance(tokens, list) else metadata.get("llama.vocab_size"),
    }


def gguf_weights(path: Path, num_heads: int, num_kv_heads: int) -> Iterator[tuple[str, mx.array]]:
    """Every weight as Hugging Face's layout has it: dequantized to float32, queries and keys in its order."""
    arrays, _ = read_gguf(path)
    for name, array in arrays.items():
        stem, _, kind = name.rpartition(".")
        if kind in ("scales", "biases") and f"{stem}.weight" in arrays:
            continue
        if f"{stem}.scales" in arrays:
            # Scales in float16, as they come, would cost four digits.
            scales, biases = (
                arrays[f"{stem}.{suffix}"].astype(mx.float32) for suffix in ("scales", "biases")
            )
            bits = array.shape[-1] * 32 // (scales.shape[-1] * GROUP)
            array = mx.dequantize(array, scales, biases, group_size=GROUP, bits=bits)
        if rotated := re.search(r"\.attn_([qk])\.weight$", name):
            # GGUF files interleave the rows of a head, for rotary positions on adjacent pairs.
            heads = num_heads if rotated[1] == "q" else num_kv_heads
            array = array.reshape(heads, -1, 2, array.shape[-1]).swapaxes(1, 2).reshape(array.shape)
        yield ".".join(PARTS.get(part, part) for part in name.split(".")), array
