"""Labelled rows as the cells of a table, which `model=tabular` reads in place of texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models

from mlxlab.data.batch import Batch, Task
from mlxlab.data.cache import content_key
from mlxlab.data.dataset import Table
from mlxlab.data.labelled.encoder import SavedEncoder, TypedEncoder
from mlxlab.data.labelled.inputs import Inputs
from mlxlab.data.labelled.labels import Labels, Targets, require_fitted
from mlxlab.data.labelled.row_split import SplitRows
from mlxlab.data.labelled.split import fold_numbers
from mlxlab.data.labelled.types import (
    ColumnType,
    TypedColumn,
    read_table,
)
from mlxlab.data.rng import Stream
from mlxlab.data.tokenizers.tokenizer import BOS, EOS, MASK, PAD, Tokenizer
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.models.cells import FOLDER, FORMAT
from mlxlab.models.cells.columns import CellColumn, fit_columns, fit_text_columns, read_cells
from mlxlab.models.cells.text_reader import (
    FittedReader,
    TextReader,
    fit_reader,
    is_consistent,
    load_readers,
    save_readers,
)
from mlxlab.models.cells.vectors import Embed, Embedder, known_vectors

# Numbers of training rows, and what holds there: more rows need fewer epochs, and larger batches cost less.
BATCH_SIZES = ((10_000, 30_000), (170, 510))
EPOCHS = ((40_000, 80_000, 100_000), (22, 8, 5))
MAX_EPOCHS = 10_000
BLOCK = 2**16  # rows that are read at once
NO_FOLD = -1


@cache
def no_tokens() -> Tokenizer:
    """A tokenizer of the special tokens alone: a table has no texts."""
    vocabulary = {name: number for number, name in enumerate((PAD, BOS, EOS, MASK))}
    inner = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    inner.add_special_tokens(list(vocabulary))
    return Tokenizer(inner)


class SavedCells(SavedEncoder):
    """A `CellEncoder` in data.json."""

    types: dict[str, ColumnType]
    cells: list[CellColumn]


@dataclass(frozen=True)
class CellEncoder(TypedEncoder):
    """Reads the typed cells of rows as numbers and encodes the labels."""

    column_types: Mapping[str, ColumnType]
    cells: Sequence[CellColumn]
    readers: Mapping[str, TextReader]  # one for each column of texts
    labels: Labels
    label_column: str
    embedder: Embedder | None = None  # there is one if the readers read vectors

    @property
    def tokenizer(self) -> Tokenizer:
        return no_tokens()

    @property
    def task(self) -> Task:
        return self.labels.task(None)

    @property
    def types(self) -> Mapping[str, ColumnType]:
        return self.column_types

    @property
    def reads_vectors(self) -> bool:
        """Whether the readers of texts were fitted with a pretrained encoder."""
        return any(reader.vector_size for reader in self.readers.values())

    def with_embedder(self, embedder: Embedder) -> "CellEncoder":
        """The encoder with that of its texts; DataError if its vectors have another size."""
        for name, reader in self.readers.items():
            if reader.vector_size != embedder.size:
                got = f"{reader.vector_size} numbers, of the encoder {embedder.size}"
                raise DataError(f"column {name!r}: the reader reads vectors of {got}")
        return replace(self, embedder=embedder)

    def read(self, table: Table, embed: Embed | None = None) -> np.ndarray:
        """(N, C) float32, NaN where a cell is missing; DataError for a cell of another type.

        Args:
            embed: gives the vectors of texts in place of the encoder's.
        """
        typed = read_table(table, self.types)
        embed = embed or self.embedder
        numbers = {name: read(typed[name].values, embed) for name, read in self.readers.items()}
        return self.read_columns(typed, numbers)

    def read_columns(
        self, typed: Mapping[str, TypedColumn], numbers: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """(N, C) float32 of typed columns.

        Args:
            numbers: those of each different text (T, M), by the column of texts.
        """
        columns = []
        for each in self.cells:
            name = each["name"]
            columns.append(read_cells(typed[name], each, numbers.get(name)))
        return np.stack(columns, axis=1)

    def collate(
        self,
        inputs: np.ndarray,
        targets: Targets,
        rows: np.ndarray,
        ids: np.ndarray,
        length: int | None = None,
    ) -> Batch:
        """Implements `TypedEncoder`; the length is that of any other batch."""
        mask = np.ones((len(inputs), 1), np.int32)
        return Batch(inputs, mask, *targets.of(rows), ids.astype(np.int64))

    def rules(self) -> object:
        return [*self.types.values(), *self.cells]

    def save(self, folder: Path, **saved: object) -> None:
        """Writes tokenizer.json, data.json, with what `SavedEncoder` says, and the readers of texts."""
        self.tokenizer.save(folder)
        save_readers(folder, self.readers)
        if self.embedder is not None and self.reads_vectors:
            self.embedder.save(folder / FOLDER)
        saved["format"] = FORMAT
        saved["labels"] = self.labels.state_dict()
        saved["types"] = {name: vars(each) for name, each in self.types.items()}
        saved["cells"] = list(self.cells)
        write_json(folder / "data.json", saved)


def restore_cells(folder: Path) -> CellEncoder:
    """The encoder that `save` wrote; InputNotFoundError or DataError if there is none."""
    path = folder / "data.json"
    state = read_json(path, SavedCells)
    types = state["types"]
    numbers: dict[str, int] = {}  # the last that is read of each column of texts
    for column in state["cells"]:
        name = column["name"]
        is_text = column["part"] == "text"
        if name not in types or is_text != (types[name].kind == "text"):
            raise DataError(f"{path}: expected a type of each column, and its part")
        if is_text:
            numbers[name] = max(numbers.get(name, 0), column["number"])
    if not state["cells"]:
        raise DataError(f"{path}: expected a column")
    readers = load_readers(folder, list(numbers))
    for name, reader in readers.items():
        if not is_consistent(reader) or numbers[name] >= len(reader.bias):
            raise DataError(f"{folder}: the reader of column {name!r} does not fit {path.name}")
    require_fitted(state["labels"], path)
    return CellEncoder(types, state["cells"], readers, state["labels"], state["label_column"])


class CellInputs(Inputs):
    """The cells of all rows, in memory: `Inputs` of a model that reads cells.

    Args:
        folds: networks that are trained side by side, each without the training rows of its fold.
        embedder: the pretrained encoder of texts, if there is one.
    """

    eval_batch_size = 1024
    min_steps = 250

    def __init__(
        self,
        split: SplitRows,
        seed: int,
        cache: Path,
        *,
        folds: int,
        embedder: Embedder | None,
    ) -> None:
        num_train = len(split.train)
        self.batch_size = round(np.interp(num_train, *BATCH_SIZES))
        self.epoch_limits = (round(np.interp(num_train, *EPOCHS)), MAX_EPOCHS)
        train = read_table(split.rows.table(list(split.types), split.train), split.types)
        embed = None
        if embedder is not None:
            texts = _all_texts(split)
            if texts:
                embed = known_vectors(embedder, texts, cache)
                size = embedder.size
                self.lines = [f"{len(texts):,} different texts as vectors of {size} numbers"]
        readers = _fit_readers(train, split, seed, embed)
        if not readers:
            embedder = None
        fitted = fit_columns(train)
        for name, each in readers.items():
            fitted += fit_text_columns(train[name], each.numbers, each.margins)
        if not fitted:
            raise ConfigError(f"{split.rows.name}: expected a column of different values")
        names = dict.fromkeys(each.cells["name"] for each in fitted)
        types = {name: split.types[name] for name in names}
        cells = [each.cells for each in fitted]
        self.encoder = CellEncoder(
            types,
            cells,
            {name: each.reader for name, each in readers.items() if name in types},
            split.labels,
            split.column.name,
            embedder,
        )
        self.model_columns = [each.model for each in fitted]
        self.tokenizer = no_tokens()
        # Texts of training rows are read by models that did not learn from them.
        held_out = {name: each.numbers for name, each in readers.items()}
        parts = [self.encoder.read_columns(train, held_out)]
        for block in split.rows.blocks(list(types), split.numbers[num_train:]):
            parts.append(self.encoder.read(block, embed))
        self._cells = np.concatenate(parts)
        if folds > 1:
            codes = split.targets.codes[:num_train]
            self.folds = np.full(len(self._cells), NO_FOLD, np.int32)
            rows = np.arange(num_train)
            self.folds[:num_train] = fold_numbers(rows, codes, folds, seed, Stream.FOLDS)
        self.lengths = np.ones(len(self._cells), np.int32)
        self.key = content_key(
            format=FORMAT,
            cells=cells,
            types={name: vars(each) for name, each in types.items()},
            encoder=None if embedder is None else embedder.fingerprint,
            folds=folds,
            **split.content,
        )

    def sequences(self, epoch: int, positions: np.ndarray, copies: int | np.ndarray) -> np.ndarray:
        """Implements `Inputs`."""
        return positions

    def take(self, sequences: np.ndarray) -> Any:
        """Implements `Inputs`."""
        return self._cells[sequences]


def _all_texts(split: SplitRows) -> list[str]:
    """The different texts of all rows."""
    types = {name: each for name, each in split.types.items() if each.kind == "text"}
    texts: dict[str, None] = {}
    for block in split.rows.blocks(list(types), split.numbers):
        for column in read_table(block, types).values():
            texts |= dict.fromkeys(column.values)
    return list(texts)


def _fit_readers(
    train: Mapping[str, TypedColumn], split: SplitRows, seed: int, embed: Embed | None
) -> dict[str, FittedReader]:
    """A reader of each column of texts."""
    task = split.labels.task(None)
    targets, _ = split.targets.of(np.arange(len(split.train)))
    readers = {}
    for name, column in train.items():
        if column.type.kind == "text":
            fitted = fit_reader(column, targets, task.kind, task.num_classes, seed, embed)
            if fitted is not None:
                readers[name] = fitted
    return readers
