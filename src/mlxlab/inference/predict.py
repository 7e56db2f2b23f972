"""Predictions of a restored model: for the rows of a table, or the masked tokens of a text."""

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeGuard

import mlx.core as mx
import numpy as np

from mlxlab.config.instantiate import instantiate
from mlxlab.data.batch import Batch, Task
from mlxlab.data.dataset import Encoder, RowEncoder, Table
from mlxlab.data.labelled.encoder import TypedEncoder
from mlxlab.data.labelled.rows import text_blocks
from mlxlab.data.labelled.types import read_table, shorten
from mlxlab.data.sources.arrow import TableRows
from mlxlab.data.sources.block import ErrorBudget
from mlxlab.data.sources.messages import MissingColumnError
from mlxlab.data.sources.open import Reading
from mlxlab.data.text.dataset import TextEncoder
from mlxlab.data.tokenizers.tokenizer import SPECIAL_NAMES
from mlxlab.errors import DataError, NotAllowedError
from mlxlab.inference.restore import RestoredModel
from mlxlab.terminal.wording import counted
from mlxlab.training.device_batch import to_device
from mlxlab.training.evaluate import read_out
from mlxlab.training.metrics.labelled import as_thresholds, predicted_classes

if TYPE_CHECKING:
    import pandas as pd

Rows: TypeAlias = "Iterable[str] | Iterable[Mapping[str, object]] | pd.DataFrame"
logger = logging.getLogger(__name__)
Cells: TypeAlias = "Sequence[str] | Sequence[list[str]] | Sequence[float]"


def to_table(rows: Rows, columns: Sequence[str], missing: Sequence[str] = ()) -> Table:
    """These columns of the rows. Texts are allowed for a model that reads one column; a key that a dict lacks is missing.

    Args:
        missing: texts that count as missing besides empty ones.

    Raises:
        DataError: the rows are neither dicts nor texts, a column is missing, or a value cannot stand in a cell.
    """
    if isinstance(rows, str):
        raise DataError("expected a list of rows, got one text; put it into a list")
    held = rows if is_frame(rows) else _as_dicts(rows, columns)
    table: dict[str, list[str | None]] = {name: [] for name in columns}
    if not len(held):
        return table
    source = TableRows(held, "rows", fingerprint="rows")
    for block in text_blocks(source, columns, missing, ErrorBudget("strict")):
        for name, cells in block.columns.to_pydict().items():
            table[name] += cells
    return table


def row_reading(node: dict[str, Any]) -> Reading:
    """How files of rows are read, by the data node of a run; by default as CSV files of UTF-8."""
    if "reading" not in node:
        return Reading()
    return instantiate(node["reading"], Reading)


def is_frame(rows: object) -> "TypeGuard[pd.DataFrame]":
    """Whether this is a DataFrame, without an import of pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(rows, pandas.DataFrame)


def _as_dicts(
    rows: "Iterable[str] | Iterable[Mapping[str, object]]", columns: Sequence[str]
) -> list[Mapping[str, object]]:
    dicts: list[Mapping[str, object]] = []
    for number, row in enumerate(rows, 1):
        if isinstance(row, Mapping):
            dicts.append(row)
        elif isinstance(row, str) and len(columns) == 1:
            dicts.append({columns[0]: row})
        else:
            expected = f"expected a dict with {', '.join(columns)}, got {type(row).__name__}"
            raise DataError(f"row {number}: {expected}")
    return dicts


class UnseenCategories:
    """The categories of rows to predict that no training row has: the model knows nothing of them."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}

    def add(self, encoder: Encoder, table: Table) -> None:
        """Counts those of these rows."""
        if isinstance(encoder, TypedEncoder):
            for name, column in read_table(table, encoder.types).items():
                self.counts.setdefault(name, Counter()).update(column.unseen())

    def lines(self) -> list[str]:
        """A line for each column."""
        lines: list[str] = []
        for name, counts in self.counts.items():
            if not counts:
                continue
            [(first, _)] = counts.most_common(1)
            cells = counted(counts.total(), "cell")
            got = f"{cells} with a category that no training row has, such as {shorten(first)}"
            lines.append(f"column {name!r}: {got}")
        return lines


class MalformedRowError(DataError):
    """A row that cannot be encoded."""


class Predictions(NamedTuple):
    """Predictions for N rows.

    Attributes:
        values: probabilities of the classes (N, C) or labels (N, L), or the predicted numbers (N,), in the units of the
            data.
        thresholds: the probability from which each of `task.decided_labels` holds; none if the most probable class counts.
    """

    task: Task
    values: np.ndarray
    thresholds: tuple[float, ...]

    def columns(self) -> dict[str, Cells]:
        """A column of N cells by name: `label` (or `labels`, those that hold) and `probability_<label>`, or `value`."""
        if self.task.kind == "regression":
            return {"value": self.values.tolist()}
        columns = self.label_columns("label", "labels", self.task.labels)
        return columns | {
            f"probability_{name}": self.values[:, i].tolist()
            for i, name in enumerate(self.task.labels)
        }

    def label_columns(self, single: str, several: str, names: Sequence[str]) -> dict[str, Cells]:
        """The column `single` with the class of each row by name, or `several` with the labels that hold."""
        if self.task.kind == "classification":
            classes = predicted_classes(self.task, self.values, as_thresholds(self.thresholds))
            return {single: [names[i] for i in classes.tolist()]}
        holds = self.values >= as_thresholds(self.thresholds)
        cells = [list(compress(names, row)) for row in holds]
        return {several: cells}


def predict_rows(restored: RestoredModel, rows: Rows, batch_size: int = 64) -> dict[str, Cells]:
    """The columns of `Predictions` for rows held in Python; warns of categories that no training row has."""
    encoder = row_encoder(restored.encoder)
    table = to_table(rows, encoder.columns, row_reading(restored.config["data"]).missing)
    columns = predict_table(restored, table, batch_size).columns()
    unseen = UnseenCategories()
    unseen.add(encoder, table)
    for line in unseen.lines():
        logger.warning(line)
    return columns


def predict_table(
    restored: RestoredModel,
    table: Table,
    batch_size: int = 64,
    location: Callable[[int], str] = lambda row: f"row {row + 1}",
) -> Predictions:
    """Predictions for the rows of a table with the columns of the model; others are ignored.

    Args:
        location: of a row, for messages.

    Raises:
        NotAllowedError: the model is not one of labelled rows.
        DataError: a cell is malformed.
    """
    encoder = row_encoder(restored.encoder)
    columns = {name: table[name] for name in encoder.columns}
    count = max(map(len, columns.values()))
    outputs = []
    for start in range(0, count, batch_size):
        rows = {name: cells[start : start + batch_size] for name, cells in columns.items()}
        batch = to_device(encode_located(encoder, rows, location, start))
        logits = restored.model(batch.tokens, batch.segment_ids).astype(mx.float32)
        outputs.append(read_out(logits, encoder.task))
    shape = 0 if encoder.task.kind == "regression" else (0, encoder.task.num_classes)
    values = np.concatenate([np.zeros(shape, np.float32), *outputs])
    if not np.isfinite(values).all():
        raise DataError("the outputs of the model are not finite numbers: its weights are damaged")
    return Predictions(encoder.task, values, restored.thresholds)


def predict_usable(
    restored: RestoredModel,
    table: Table,
    locations: Sequence[str],
    batch_size: int,
    errors: ErrorBudget,
) -> tuple[list[int], Table, Predictions]:
    """Predictions for the rows that can be encoded, after their numbers, from 0, and their cells.

    Raises:
        MalformedRowError: a row cannot be encoded, and `errors` is strict; otherwise it is counted there as malformed.
    """
    rows = list(range(len(locations)))
    try:
        return rows, table, predict_table(restored, table, batch_size, locations.__getitem__)
    except MalformedRowError:
        if errors.on_error == "strict":
            raise
    encoder = row_encoder(restored.encoder)
    malformed = dict(_malformed_rows(encoder, {name: table[name] for name in encoder.columns}))
    for row, fault in malformed.items():
        errors.valid -= 1  # The reader has counted it as valid.
        errors.skip(locations[row], partial("{}: {}".format, locations[row], fault))
    rows = [row for row in rows if row not in malformed]
    usable = {name: [cells[row] for row in rows] for name, cells in table.items()}
    return rows, usable, predict_table(restored, usable, batch_size)


def row_encoder(encoder: Encoder) -> RowEncoder:
    """`encoder`, or NotAllowedError if it is not one of labelled rows."""
    if not isinstance(encoder, RowEncoder):
        expected = "expected a data set whose encoder is a mlxlab.data.dataset.RowEncoder"
        raise NotAllowedError(f"{expected}; a language model predicts no labels")
    return encoder


def trained_on(error: MissingColumnError, names: Sequence[str]) -> DataError:
    """The error for data without these columns, which the model needs."""
    return DataError(f"{error}; the model was trained on {', '.join(map(repr, names))}")


def encode_located(
    encoder: RowEncoder, table: Table, location: Callable[[int], str], first: int = 0
) -> Batch:
    """`encoder.encode_rows(table)`; a MalformedRowError has the location of the first malformed row.

    Args:
        first: the number of the first row of the table, for its location.
    """
    try:
        return encoder.encode_rows(table)
    except DataError:
        for row, fault in _malformed_rows(encoder, table):
            raise MalformedRowError(f"{location(first + row)}: {fault}") from None
        raise


def _malformed_rows(encoder: RowEncoder, table: Table) -> Iterator[tuple[int, str]]:
    """The rows that cannot be encoded, and what is wrong with each."""
    for row, cells in enumerate(zip(*table.values(), strict=True)):
        try:
            encoder.encode_rows({name: [cell] for name, cell in zip(table, cells, strict=True)})
        except DataError as error:
            yield row, str(error).removeprefix("row 1: ")


def fill_mask(restored: RestoredModel, text: str) -> str:
    """The text with the most probable token for each `<mask>` (or `[MASK]`); DataError without one, or if too long."""
    assert isinstance(restored.encoder, TextEncoder)
    tokenizer = restored.encoder.tokenizer
    max_length = restored.model.backbone.max_position_embeddings
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
