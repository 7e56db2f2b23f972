"""Weights of a Hugging Face folder under our names: safetensors only, everything expected or a fault."""

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlxlab.errors import DataError, InputNotFoundError, NotAllowedError
from mlxlab.models.pretrained.gguf import weights_of

Names = list[tuple[str, str | Callable[[re.Match[str]], str]]]  # theirs as a pattern, ours

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
PROJECTIONS = {"q": "query", "k": "key", "v": "value", "o": "out"}
LLAMA_NAMES: Names = [
    (r"^model\.", ""),
    (r"^lm_head\.", "head.out."),
    (r"^embed_tokens\.", "embedding."),
    (r"self_attn\.([qkvo])_proj\.", lambda match: f"attention.{PROJECTIONS[match[1]]}."),
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
# Buffers and copies, and what BERT was trained with besides; not worth a word.
IGNORED_KEYS = re.compile(r"position_ids$|rotary_emb\.inv_freq$|^cls\.predictions\.decoder\.|^cls\.seq_relationship\.")


def load_weights(model: nn.Module, folder: Path, names: Names) -> Any:
    """Gives every parameter of `model` its weight, in float32. Those of a head are kept in `model._head`.

    Raises:
        DataError: weights are missing or of another shape, or the layers have more than ours: another architecture.
    """
    found = {_rename(name, names): array for name, array in _read(folder) if not IGNORED_KEYS.search(name)}
    head = {name.removeprefix("head."): found.pop(name) for name in list(found) if name.startswith("head.")}
    leaves: list[tuple[str, Any]] = tree_flatten(model.parameters())  # type: ignore[assignment]
    expected = {path: leaf.shape for path, leaf in leaves}
    unexpected = [path for path in found if path not in expected]
    faults = [f"{path} is missing" for path in expected if path not in found]
    faults += [f"{path} is not one of ours" for path in unexpected if path.startswith("layers.")]
    faults += [
        f"{path} has shape {found[path].shape}, expected {shape}"
        for path, shape in expected.items()
        if path in found and found[path].shape != shape
    ]
    if faults:
        raise DataError(f"{folder}: weights do not fit: {_some(faults)}")
    if unexpected:
        warnings.warn(f"{folder}: left out, for the model has no such weights: {_some(unexpected)}", stacklevel=4)
    model.load_weights([(path, found[path].astype(mx.float32)) for path in expected])
    model._head = {name: array.astype(mx.float32) for name, array in head.items()}
    _evaluate(folder, [model.parameters(), model._head])
    return model


def _some(words: list[str]) -> str:
    return "; ".join(words[:4]) + (f"; and {len(words) - 4} more" if len(words) > 4 else "")


def _rename(name: str, names: Names) -> str:
    for pattern, ours in names:
        name = re.sub(pattern, ours, name)
    return name


def _read(folder: Path) -> list[tuple[str, mx.array]]:
    if folder.suffix == ".gguf":
        return weights_of(folder)
    found: list[tuple[str, mx.array]] = []
    for path in _files(folder):
        try:
            arrays: Any = mx.load(str(path), format="safetensors")
        except RuntimeError as error:
            raise DataError(f"{path}: not a sound safetensors file ({_first_line(error)})") from None
        found += arrays.items()
    return found


def _files(folder: Path) -> list[Path]:
    """The files named by the index where there is one, else the one of the usual name, else all."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{index}: not a readable index ({type(error).__name__})") from None
        if any(not isinstance(name, str) or Path(name).name != name for name in names):
            raise NotAllowedError(f"{index}: names files outside its folder")
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise InputNotFoundError(f"{folder}: named by its index, but not there: {_some(missing)}")
        return [folder / name for name in names]
    usual = folder / "model.safetensors"
    found = [usual] if usual.is_file() else sorted(folder.glob("*.safetensors"))
    if not found and (pickled := sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])):
        raise NotAllowedError(
            f"{folder}: has {pickled[0].name}, but no safetensors; pickled weights can run code, and are not read"
        )
    if not found:
        raise InputNotFoundError(f"{folder}: no safetensors file")
    return found


def _evaluate(folder: Path, arrays: Any) -> None:
    """At once: the arrays are promises, and the files may change under them."""
    try:
        mx.eval(arrays)
    except RuntimeError as error:
        raise DataError(f"{folder}: weights cannot be read ({_first_line(error)})") from None


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
