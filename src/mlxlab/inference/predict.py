"""Predictions of a restored model, classes of passengers or the masked tokens of a text; and the MLflow signature."""

import json
from collections.abc import Sequence
from dataclasses import fields

import mlx.core as mx
import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.text.encoder import TextEncoder
from mlxlab.data.titanic.encoder import PassengerEncoder
from mlxlab.data.titanic.passenger import COLUMNS, Passenger
from mlxlab.data.tokenizers.tokenizer import SPECIAL_NAMES
from mlxlab.errors import DataError, NotAllowedError
from mlxlab.inference.restore import RestoredModel
from mlxlab.training.device_batch import to_device

TYPES: dict[type, str] = {int: "long", float: "double", bool: "boolean", str: "string"}


def predict(restored: RestoredModel, rows: Sequence[Passenger], batch_size: int = 64) -> np.ndarray:
    """(N, C) probabilities of the classes, a row per passenger; NotAllowedError for a model of other data."""
    if not isinstance(restored.encoder, PassengerEncoder):
        raise NotAllowedError(
            f"expected a classifier of passengers, got a model for {restored.encoder.task.kind} of other data"
        )
    probabilities = [np.zeros((0, restored.encoder.task.num_classes), np.float32)]
    for start in range(0, len(rows), batch_size):
        batch = to_device(restored.encoder.encode_rows(rows[start : start + batch_size]))
        logits = restored.model(batch.tokens, batch.segment_ids).astype(mx.float32)
        probabilities.append(np.array(mx.softmax(logits, axis=-1)))
    return np.concatenate(probabilities)


def fill_mask(restored: RestoredModel, text: str) -> str:
    """The text with the most probable token for each `<mask>` (or `[MASK]`); DataError without one, or if too long."""
    assert isinstance(restored.encoder, TextEncoder)
    tokenizer, max_length = restored.encoder.tokenizer, restored.model.backbone.max_position_embeddings
    assert tokenizer.mask_id is not None
    mask, *synonyms = SPECIAL_NAMES["mask"]
    for name in synonyms:
        text = text.replace(name, mask)
    tokens: list[int] = []
    for segment in text.split(mask):
        tokens += [tokenizer.mask_id, *tokenizer.encode(segment, special=False)]
    del tokens[0]  # no mask before the first segment
    if tokenizer.mask_id not in tokens:
        raise DataError("expected a text with <mask>, got none")
    if len(tokens) > max_length:
        raise DataError(f"expected a text of at most {max_length} tokens, got {len(tokens)}")
    ids = mx.array([tokens])
    logits = restored.model(ids, mx.ones(ids.shape, dtype=mx.int32))[0]  # (T, V)
    best = np.array(logits.argmax(axis=-1))
    return tokenizer.decode(np.where(np.array(tokens) == tokenizer.mask_id, best, tokens).tolist())


def model_signature(task: Task) -> dict[str, str]:
    """The types for MLflow: Kaggle's columns to a label and a probability per class, or text to text."""
    if task.kind == "classification":
        inputs = {name: TYPES[column.kind] for name, column in COLUMNS.items() if name != "Survived"}
        probabilities = {f"probability_{label}": "float" for label in task.labels}
        return {"inputs": _columns(inputs), "outputs": _columns({"label": "string"} | probabilities)}
    output = "filled" if task.masked else "continuation"
    signature = {"inputs": _columns({"text": "string"}), "outputs": _columns({output: "string"})}
    return signature if task.masked else signature | {"params": _generation_options()}


def _columns(types: dict[str, str]) -> str:
    return json.dumps([{"type": kind, "name": name, "required": True} for name, kind in types.items()])


def _generation_options() -> str:
    """The options of generation with their defaults; those without one of these types are left out."""
    from mlxlab.inference.generate import GenerationConfig
    from mlxlab.inference.sampling import SamplingParams

    options: list[dict[str, object]] = [
        {"name": field.name, "default": field.default, "shape": None, "type": TYPES[type(field.default)]}
        for field in [*fields(GenerationConfig), *fields(SamplingParams)]
        if type(field.default) in TYPES
    ]
    return json.dumps([*options, {"name": "stop", "default": [], "shape": [-1], "type": "string"}])
