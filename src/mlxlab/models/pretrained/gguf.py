"""GGUF files of Llama type: weights and header, from what MLX's reader gives.

The header is checked against the size of the file: MLX's reader follows every length and offset in it unchecked.
"""

import mmap
import re
import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import NamedTuple, cast

import mlx.core as mx
import numpy as np

from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import open_regular

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
VERSIONS = (2, 3)
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 2**20
STRING, ARRAY, UINT32 = 8, 9, 4  # types of metadata
SCALAR_BYTES = {
    0: 1,
    1: 1,
    2: 2,
    3: 2,
    4: 4,
    5: 4,
    6: 4,
    7: 1,
    10: 8,
    11: 8,
    12: 8,
}  # type of metadata -> bytes
BLOCKS = {  # type of a tensor -> numbers in a block, bytes of a block
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    30: (1, 2),
}
BFLOAT16 = 30
Metadata = dict[str, object]  # numbers, text and lists of them


class Tensor(NamedTuple):
    """Where an array stands in a file; the dimensions of its shape are those of the file, the last one outermost."""

    name: str
    kind: int
    shape: list[int]
    offset: int  # bytes


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
    if isinstance(value, mx.array):
        value = value.tolist()
    if isinstance(value, float):
        value = float(f"{value:.7g}")
    return value


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
    vocab_size = metadata.get("llama.vocab_size")
    if isinstance(tokens, list):
        vocab_size = len(tokens)
    return sizes | {
        "model_type": "llama",
        "tie_word_embeddings": "output.weight" not in arrays,
        "vocab_size": vocab_size,
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
            heads = {"q": num_heads, "k": num_kv_heads}[rotated[1]]
            array = array.reshape(heads, -1, 2, array.shape[-1]).swapaxes(1, 2).reshape(array.shape)
        yield ".".join(PARTS.get(part, part) for part in name.split(".")), array


def read_header(path: Path) -> list[Tensor]:
    """The arrays of a GGUF file.

    Raises DataError unless all of its lengths, types and offsets lie within it, and as `open_regular`.
    """
    with open_regular(path) as file:
        if file.read(4) != b"GGUF":
            raise DataError(f"{path}: not a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Header(data).read()
            except (ValueError, struct.error) as error:
                raise DataError(f"{path}: not a valid GGUF file ({error})") from None


class _Header:
    """A position in a header, which moves with everything that is read; ValueError where the file ends before."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.position = 4
        self.alignment = 32

    def read(self) -> list[Tensor]:
        version = self.number("I")
        num_tensors = self.number("Q")
        num_keys = self.number("Q")
        _require(version in VERSIONS, f"version {version}, expected 2 or 3")
        for _ in range(num_keys):  # ends at the end of the file, whatever the number
            key = self.string()
            kind = self.number("I")
            if key == b"general.alignment":
                self.alignment = self.number("I") if kind == UINT32 else 0
            else:
                self.skip_value(kind)
        is_power = self.alignment > 0 and self.alignment & (self.alignment - 1) == 0
        _require(is_power and self.alignment <= MAX_ALIGNMENT, f"alignment {self.alignment}")
        tensors = [self.tensor() for _ in range(min(num_tensors, len(self.data)))]
        start = -(-self.position // self.alignment) * self.alignment
        for tensor in tensors:
            numbers, block_bytes = BLOCKS[tensor.kind]
            end = start + tensor.offset + prod(tensor.shape) // numbers * block_bytes
            _require(end <= len(self.data), f"{tensor.name[:60]!r} ends at byte {end}")
        return [tensor._replace(offset=start + tensor.offset) for tensor in tensors]

    def number(self, code: str) -> int:
        (value,) = struct.unpack_from(f"<{code}", self.data, self.position)
        self.position += struct.calcsize(f"<{code}")
        return int(value)

    def string(self) -> bytes:
        length = self.number("Q")
        first = self.position
        self.skip(length)
        return self.data[first : self.position]

    def skip(self, length: int) -> None:
        _require(length <= len(self.data) - self.position, f"{length} bytes at {self.position}")
        self.position += length

    def skip_value(self, kind: int) -> None:
        if kind == STRING:
            self.skip(self.number("Q"))
        elif kind != ARRAY:
            self.skip(_scalar_bytes(kind))
        elif (items := self.number("I")) == STRING:
            for _ in range(self.number("Q")):
                self.skip(self.number("Q"))
        else:
            self.skip(_scalar_bytes(items) * self.number("Q"))

    def tensor(self) -> Tensor:
        """The next tensor, with its offset behind the header."""
        name = self.string().decode("utf-8", errors="replace")
        num_dimensions = self.number("I")
        _require(num_dimensions <= MAX_DIMENSIONS, f"{num_dimensions} dimensions")
        shape = [self.number("Q") for _ in range(num_dimensions)]
        kind = self.number("I")
        offset = self.number("Q")
        _require(kind in BLOCKS, f"{name[:60]!r} is of an unsupported type ({kind})")
        is_whole = not shape or shape[0] % BLOCKS[kind][0] == 0
        fits = is_whole and all(1 <= size < 2**31 for size in shape)
        _require(fits and offset % self.alignment == 0, f"{name[:60]!r} of {shape} at {offset}")
        return Tensor(name, kind, shape, offset)


def _scalar_bytes(kind: int) -> int:
    _require(kind in SCALAR_BYTES, f"metadata of an unsupported type ({kind})")
    return SCALAR_BYTES[kind]


def _require(condition: bool, fault: str) -> None:
    if not condition:
        raise ValueError(fault)
