"""Writes a trained model as a folder that transformers and, for decoders, mlx-lm load."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import mlx.core as mx

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import WriteError
from mlxlab.files.atomic import write_atomic
from mlxlab.files.new_folder import new_folder
from mlxlab.interop.counterpart import counterpart_of
from mlxlab.interop.model_card import MLX_LM, TRANSFORMERS, Origin, model_card
from mlxlab.interop.published_weights import is_quantised, plain_weights, publish, quantised_weights
from mlxlab.interop.tokenizer_files import tokenizer_files
from mlxlab.interop.trained_model import TrainedModel
from mlxlab.models.model import count_parameters

Dtype = Literal["float32", "float16", "bfloat16"]
WEIGHTS = "model.safetensors"
BASE_ONLY = "These are the weights below the adapters in the folder above, which PEFT adds to them."
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def export_hugging_face(
    trained: TrainedModel,
    out: Path,
    origin: Origin,
    dtype: Dtype = "float32",
    dequantize: bool = False,
) -> None:
    """Writes the files of `model_folder` as a whole or not at all.

    Args:
        out: the folder; it must not exist. The others are those of `model_folder`.

    Raises:
        ConfigError: see `model_folder`. CannotCreateError: `out` exists. WriteError: it cannot be written.
    """
    write_folder(out, model_folder(trained, origin, dtype, dequantize))


def model_folder(
    trained: TrainedModel,
    origin: Origin,
    dtype: Dtype = "float32",
    dequantize: bool = False,
    *,
    with_adapters: bool = True,
) -> Callable[[Path], None]:
    """Writes config.json, model.safetensors, tokenizer files and a model card into a folder.

    A quantised decoder without adapters stays as it is, in the layout of mlx-lm.

    Args:
        dtype: of the weights.
        dequantize: write the weights of quantised layers in `dtype`.
        with_adapters: fold them in; otherwise the weights are those below the adapters.

    Raises:
        ConfigError: the model has no counterpart, or a weight is too large for `dtype`.
    """
    counterpart = counterpart_of(trained)
    config = {**counterpart.config, **_tokens(trained), "dtype": dtype}
    config.pop("torch_dtype", None)  # an old name of dtype
    quantised = is_quantised(trained) and trained.generates and not dequantize
    if quantised:
        weights, codes = quantised_weights(trained)
        config |= {"quantization": codes, "quantization_config": codes}
    else:
        weights = plain_weights(trained, with_adapters=with_adapters)
    arrays = publish(weights, counterpart.published_name, dtype, counterpart.casts)
    files = {"config.json": json.dumps(config, indent=1) + "\n", **tokenizer_files(trained)}
    if trained.generates:
        files["generation_config.json"] = json.dumps(_generation(config), indent=1) + "\n"
    count = sum(array.size for array in arrays.values())
    if quantised:
        count = count_parameters(trained.model)
    notes = _notes(trained, quantised)
    if not with_adapters:
        notes.append(BASE_ONLY)
    programs = [] if quantised or counterpart.needs_mlx_lm else [TRANSFORMERS]
    if trained.generates:
        programs.append(MLX_LM)

    def write(folder: Path) -> None:
        digest = write_arrays(folder / WEIGHTS, arrays)
        described = replace(origin, hashes={**origin.hashes, WEIGHTS: digest})
        chats = trained.template is not None
        card = model_card(
            described, counterpart, count, notes, programs, chats=chats, is_base=not with_adapters
        )
        for name, text in (files | {"README.md": card}).items():
            write_atomic(folder / name, text)

    return write


def write_arrays(file: Path, arrays: Arrays) -> str:
    """Writes a safetensors file as transformers reads it; returns its SHA-256."""
    mx.save_safetensors(str(file), arrays, {"format": "pt"})
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_folder(out: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a temporary folder, which becomes `out` as a whole or not at all; raises as `new_folder`."""
    try:
        with new_folder(out) as folder:
            write(folder)
    except (OSError, RuntimeError) as error:  # MLX has no exception of its own for a full disk
        raise WriteError(
            f"out={out}: {getattr(error, 'strerror', None) or str(error).splitlines()[0]}"
        ) from None


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


def _notes(trained: TrainedModel, quantised: bool) -> list[str]:
    """What a user has to know beyond the files."""
    notes = []
    if quantised:
        notes.append(
            "The weights are quantised in the layout of mlx-lm; transformers does not read it."
        )
    if trained.task.kind == "regression":
        notes.append("The output is the number as it stands in the data.")
    if trained.thresholds:
        pairs = zip(trained.task.decided_labels, trained.thresholds, strict=True)
        limits = ", ".join(f"{name} {value:.3g}" for name, value in pairs)
        notes.append(f"A label holds from this probability on: {limits}.")
    if trained.task.pair_separator is not None:
        notes.append("An input is a pair of texts: `tokenizer(first, second)`.")
    return notes
