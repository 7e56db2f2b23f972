"""Writes a trained model as a folder that transformers and, for decoders, mlx-lm load."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import mlx.core as mx

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.files.atomic import new_folder, write_atomic
from mlxlab.models.interop.counterpart import Counterpart, counterpart_of
from mlxlab.models.interop.model_card import MLX_LM, TRANSFORMERS, Origin, model_card
from mlxlab.models.interop.published_weights import plain_weights, publish, refuse_unwritable
from mlxlab.models.interop.tokenizer_files import tokenizer_files
from mlxlab.models.interop.trained_model import TrainedModel

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
    programs = [] if counterpart.needs_mlx_lm else [TRANSFORMERS]
    if trained.generates:
        programs.append(MLX_LM)
    chats = trained.template is not None

    def write(folder: Path) -> None:
        digest = write_arrays(folder / WEIGHTS, arrays)
        described = replace(origin, hashes={**origin.hashes, WEIGHTS: digest})
        card = model_card(described, counterpart, count, _notes(trained), programs, chats=chats)
        write_files(folder, {**files, "README.md": card})

    write_folder(out, write)


def model_files(trained: TrainedModel, counterpart: Counterpart, dtype: Dtype) -> dict[str, str]:
    """The text of config.json and of the tokenizer's files by name, and of generation_config.json of a decoder."""
    config = {**counterpart.config, **_tokens(trained), "dtype": dtype}
    config.pop("torch_dtype", None)  # an old name of dtype
    files = {"config.json": json.dumps(config, indent=1) + "\n", **tokenizer_files(trained)}
    if trained.generates:
        files["generation_config.json"] = json.dumps(_generation(config), indent=1) + "\n"
    return files


def write_arrays(file: Path, arrays: Arrays) -> str:
    """Writes a safetensors file as transformers reads it; returns its SHA-256."""
    mx.save_safetensors(str(file), arrays, {"format": "pt"})
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        write_atomic(folder / name, text)


def write_folder(out: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a temporary folder, which becomes `out` as a whole or not at all; raises as `new_folder`."""
    with refuse_unwritable(out), new_folder(out) as folder:
        write(folder)


def _tokens(trained: TrainedModel) -> dict[str, object]:
    """Size of the vocabulary and ids of special tokens, as a config.json has them."""
    tokenizer = trained.tokenizer
    ids: dict[str, object] = {"vocab_size": trained.vocab_size, "pad_token_id": tokenizer.pad_id}
    if not trained.generates:
        return ids
    ends = list(trained.end_ids)
    bos = {} if trained.start_id is None else {"bos_token_id": trained.start_id}
    return ids | bos | ({"eos_token_id": ends[0] if len(ends) == 1 else ends} if ends else {})


def _generation(config: dict[str, object]) -> dict[str, object]:
    return {"do_sample": False} | {name: config[name] for name in TOKEN_IDS if name in config}


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
