"""Texts as vectors: by a published encoder, or by a trained run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from mlxlab.data.dataset import Table
from mlxlab.data.labelled.types import Location
from mlxlab.errors import DataError, NotAllowedError
from mlxlab.inference.predict import encode_located, row_encoder
from mlxlab.inference.restore import RestoredModel, find_run_dir, restore_model
from mlxlab.models.model import Classifier, Model
from mlxlab.models.pretrained.load import resolve
from mlxlab.models.sentence_encoder import SentenceEncoder
from mlxlab.training.device_batch import to_device

TINY = float(np.finfo(np.float32).tiny)


class RowVectors(NamedTuple):
    """Makes a vector of each row.

    Attributes:
        columns: those that are read.
        size: E, the numbers of a vector.
        embed: rows, and where each stands -> (N, E) float32, each of length 1; DataError for a missing text.
    """

    columns: Sequence[str]
    size: int
    embed: Callable[[Table, Location], np.ndarray]


def load_vectors(model: str, column: str) -> RowVectors:
    """The vectors of a run folder (what its classifier reads), or of a published encoder (the mean of its states).

    Args:
        model: a run folder, or what `model.pretrained` takes.
        column: the texts that a published encoder reads; a run reads its own columns.

    Raises:
        NotAllowedError: the run predicts no label from texts, or the model is a GGUF file.
    """
    run = find_run_dir(Path(model))
    if run is not None:
        return _of_run(restore_model(run), model)
    path = resolve(model, "model")
    if path.suffix == ".gguf":
        raise NotAllowedError(f"model={model}: expected an encoder, got a GGUF file")
    encoder = SentenceEncoder(path)

    def embed(table: Table, location: Location) -> np.ndarray:
        texts = [text or "" for text in table[column]]
        for row, text in enumerate(texts):
            if not text.strip():
                raise DataError(f"{location(row)}: column {column!r}: an empty text")
        return encoder(texts)

    return RowVectors([column], encoder.size, embed)


def _of_run(restored: RestoredModel, name: str) -> RowVectors:
    model = restored.model
    encoder = row_encoder(restored.encoder)
    if not (isinstance(model, Model) and isinstance(model.head, Classifier)):
        raise NotAllowedError(f"model={name}: expected a run that predicts labels from texts")
    size = model.backbone.pooled_size

    def embed(table: Table, location: Location) -> np.ndarray:
        batch = to_device(encode_located(encoder, table, location))
        states = model.backbone(batch.tokens, batch.segment_ids)
        pooled = np.array(model.backbone.pool(states, batch.segment_ids).astype(mx.float32))
        lengths = np.linalg.norm(pooled, axis=1, keepdims=True)
        return pooled / np.maximum(lengths, TINY)

    return RowVectors(encoder.columns, size, embed)
