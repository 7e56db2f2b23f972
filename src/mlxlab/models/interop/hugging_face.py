"""Writes a trained model as a folder that transformers and, for decoders, mlx-lm load, with its tokenizer."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import mlx.core as mx
import tokenizers
from tokenizers.processors import TemplateProcessing

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.data.chat.chat_template import FILE as TEMPLATE_FILE
from mlxlab.files.atomic import new_folder, write_atomic
from mlxlab.models.interop.counterpart import (
    Counterpart,
    TrainedModel,
    counterpart_of,
    plain_weights,
    publish,
    refuse_unwritable,
)
from mlxlab.models.interop.model_card import MLX_LM, TRANSFORMERS, Origin, model_card

Dtype = Literal["float32", "float16", "bfloat16"]
WEIGHTS = "model.safetensors"
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def export_hugging_face(
    trained: TrainedModel, out: Path, origin: Origin, dtype: Dtype = "float32"
) -> None:
    """Writes config.json, model.safetensors, tokenizer files and a model card, as a whole or not at all.

    Args:
        out: the folder; it must not exist.
        dtype: of the weights.

    Raises:
        ConfigError: the model has no counterpart, or a weight is too large for `dtype`.
        CannotCreateError: `out` exists. WriteError: it cannot be written.
    """
    counterpart = counterpart_of(trained)
    weights = plain_weights(trained)
    arrays = publish(weights, counterpart.published_name, dtype, counterpart.casts)
    files = model_files(trained, counterpart, dtype)
    count = sum(array.size for array in arrays.values())
    programs = []
    if not counterpart.needs_mlx_lm:
        programs.append(TRANSFORMERS)
    if trained.generates:
        programs.append(MLX_LM)
    chats = trained.template is not None

    with refuse_unwritable(out), new_folder(out) as folder:
        digest = write_arrays(folder / WEIGHTS, arrays)
        described = replace(origin, hashes={**origin.hashes, WEIGHTS: digest})
        card = model_card(described, counterpart, count, _notes(trained), programs, chats=chats)
        write_files(folder, {**files, "README.md": card})


def model_files(trained: TrainedModel, counterpart: Counterpart, dtype: Dtype) -> dict[str, str]:
    """The text of config.json and of the tokenizer's files by name, and of generation_config.json of a decoder."""
    config = {**counterpart.config, **_tokens(trained), "dtype": dtype}
    config.pop("torch_dtype", None)  # an old name of dtype
    files = {"config.json": json.dumps(config, indent=1) + "\n", **tokenizer_files(trained)}
    if trained.generates:
        ids = {name: config[name] for name in TOKEN_IDS if name in config}
        generation = {"do_sample": False} | ids
        files["generation_config.json"] = json.dumps(generation, indent=1) + "\n"
    return files


def write_arrays(file: Path, arrays: Arrays) -> str:
    """Writes a safetensors file as transformers reads it; returns its SHA-256."""
    mx.save_safetensors(str(file), arrays, {"format": "pt"})
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        write_atomic(folder / name, text)


def _tokens(trained: TrainedModel) -> dict[str, object]:
    """Size of the vocabulary and ids of special tokens, as a config.json has them."""
    tokenizer = trained.tokenizer
    ids: dict[str, object] = {"vocab_size": trained.vocab_size, "pad_token_id": tokenizer.pad_id}
    if not trained.generates:
        return ids
    ends = list(trained.end_ids)
    if trained.start_id is not None:
        ids["bos_token_id"] = trained.start_id
    if len(ends) == 1:
        ids["eos_token_id"] = ends[0]
    elif ends:
        ids["eos_token_id"] = ends
    return ids


def _notes(trained: TrainedModel) -> list[str]:
    """What a user has to know beyond the files."""
    notes = []
    if trained.task.kind == "regression":
        notes.append("The output is the number as it stands in the data.")
    if trained.thresholds:
        pairs = zip(trained.task.decided_labels, trained.thresholds, strict=True)
        limits = ", ".join(f"{name} {value:.3g}" for name, value in pairs)
        notes.append(f"A label holds from this probability on: {limits}.")
    if trained.task.pair_separator is not None:
        notes.append("An input is a pair of texts: `tokenizer(first, second)`.")
    return notes


def tokenizer_files(trained: TrainedModel) -> dict[str, str]:
    """The text of each file by name. The tokenizer gives the ids that the model was trained with."""
    inner = tokenizers.Tokenizer.from_str(trained.tokenizer.inner.to_str())
    if trained.generates or trained.task.pair_separator is not None:
        inner.post_processor = _post_processor(trained)
    files = {
        "tokenizer.json": inner.to_str(),
        "tokenizer_config.json": json.dumps(_config(trained), ensure_ascii=False, indent=1) + "\n",
    }
    if trained.template:
        files[TEMPLATE_FILE] = trained.template.source
    return files


def special_tokens(trained: TrainedModel) -> dict[str, str]:
    """The special tokens under the names of transformers."""
    tokenizer = trained.tokenizer
    ids = {"cls_token": tokenizer.bos_id, "sep_token": tokenizer.eos_id}
    if trained.generates:
        ids = {"bos_token": trained.start_id, "eos_token": tokenizer.eos_id}
    ids |= {"pad_token": tokenizer.pad_id, "mask_token": tokenizer.mask_id}
    tokens = {
        role: str(tokenizer.inner.id_to_token(token))
        for role, token in ids.items()
        if token is not None
    }
    unknown = json.loads(tokenizer.inner.to_str())["model"].get("unk_token")
    if trained.template is not None and trained.template.eos_token:
        tokens["eos_token"] = trained.template.eos_token
    if unknown:
        tokens["unk_token"] = unknown
    return tokens


def _config(trained: TrainedModel) -> dict[str, object]:
    backbone = trained.model.backbone
    # The rows that a decoder was trained on hold several texts, or pieces of one: they are no limit of a text.
    length = backbone.max_position_embeddings
    side = "left"
    if not trained.generates:
        limits = [trained.seq_len, backbone.position_limit]
        length = min([limit for limit in limits if limit is not None], default=length)
        side = "right"
    inputs = ["input_ids", "attention_mask"]
    if trained.has_token_types:
        inputs.insert(1, "token_type_ids")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_input_names": inputs,
        "model_max_length": length,
        "padding_side": side,
        "clean_up_tokenization_spaces": False,
        **special_tokens(trained),
    }


def _post_processor(trained: TrainedModel) -> TemplateProcessing:
    """The tokens around a text, or around the texts of a pair: `start a end b end`, with the type of b for `b end`.

    A decoder expects some before a text; an end token after it would end the text before it is continued.
    """
    tokenizer = trained.tokenizer
    ids = [tokenizer.bos_id, tokenizer.end_id]
    if trained.generates:
        ids = list(trained.start)
    tokens = [
        (str(tokenizer.inner.id_to_token(token)), token) for token in ids if token is not None
    ]
    names = [name for name, _ in tokens]
    if trained.generates:
        return TemplateProcessing(single=[*names, "$A"], special_tokens=tokens)
    *start, end = names
    single = [*start, "$A", end]
    second_type = int(trained.has_token_types)
    pair = [*single, f"$B:{second_type}", f"{end}:{second_type}"]
    return TemplateProcessing(single=single, pair=pair, special_tokens=tokens)
