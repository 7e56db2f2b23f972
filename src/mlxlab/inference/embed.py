"""Texts as vectors: by a published encoder, or by a trained run."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import mlx.core as mx
import numpy as np
from tqdm import tqdm

from mlxlab.data.dataset import Table
from mlxlab.data.labelled.rows import location_of, text_blocks
from mlxlab.data.labelled.types import Location
from mlxlab.data.sources.block import ErrorBudget
from mlxlab.data.sources.messages import require_columns
from mlxlab.data.sources.open import Reading, open_source
from mlxlab.errors import DataError, NotAllowedError
from mlxlab.files.atomic import open_atomic
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
        return vectors_of(restore_model(run), model)
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


def vectors_of(restored: RestoredModel, name: str) -> RowVectors:
    """What the classifier of a run reads; NotAllowedError if it has none. `name` is that of the run."""
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


def write_vectors(vectors: RowVectors, source: str, output: Path, batch_size: int) -> int:
    """Writes the vectors of all rows of a source as an array of NumPy; returns their number."""
    errors = ErrorBudget("strict")
    opened = open_source(source, Reading(document_unit="line"), errors)
    if opened.columns():
        require_columns(vectors.columns, opened.columns(), opened.name)
    count = 0
    with open_atomic(output) as file, tqdm(unit=" rows", disable=None, dynamic_ncols=True) as bar:
        _write_header(file, count, vectors.size)
        for block in text_blocks(opened, vectors.columns, (), errors):
            locations = [location_of(opened, place) for place in block.places.tolist()]
            for start in range(0, len(locations), batch_size):
                table = block.columns.slice(start, batch_size).to_pydict()
                made = vectors.embed(table, locations[start:].__getitem__)
                file.write(made.astype("<f4").tobytes())
                count += len(made)
                bar.update(len(made))
        _write_header(file, count, vectors.size)  # NumPy leaves room for any number of rows.
    return count


def _write_header(file: BinaryIO, count: int, size: int) -> None:
    file.seek(0)
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, size)}
    np.lib.format.write_array_header_1_0(file, header)
