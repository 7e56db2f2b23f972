"""Labels of rows: a class, several labels, or a number for each; and columns that give them away."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from mlxlab.data.batch import Task
from mlxlab.data.labelled.options import RowOptions
from mlxlab.data.labelled.types import (
    ColumnType,
    Kind,
    Location,
    TypedColumn,
    distinct_texts,
    fit_type,
    is_number,
    merge_values,
    number_of_row,
    read_number,
    shorten,
    spell,
)
from mlxlab.data.rng import permutation
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import ShapeError, parse_json
from mlxlab.schema.constraints import Ge, Gt, MaxLen, MinLen
from mlxlab.terminal.wording import CHOICES, some

LabelKind = Literal["classification", "multi_label", "regression"]
KINDS: Mapping[str, Kind] = {"regression": "number", "multi_label": "text"}  # task -> its cells
MAX_AUTO_CLASSES = 50  # different whole numbers; more are amounts
MAX_CLASSES = 20_000


class Targets(NamedTuple):
    """Targets of rows by their distinct values."""

    codes: np.ndarray  # (N,); -1 for rows without a label
    values: np.ndarray  # (U + 1,) int32 or float32, or (U + 1, L) uint8; the last: without a label

    def of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Targets and loss weights of these rows, as a `Batch` holds them."""
        codes = self.codes[rows]
        targets = self.values[codes]
        weights = np.empty(targets.shape, np.float32)
        weights.T[...] = codes >= 0
        if targets.dtype == np.uint8:
            targets = targets.astype(np.float32)
        return targets, weights


@dataclass(frozen=True)
class Labels:
    """What the label column of the training rows holds; encodes that of any rows.

    Args:
        kind: as `Task.kind`.
        type: how a cell is read.
        names: the classes or labels, in the order of the model's outputs; empty for numbers.
        mean, deviation: of the training values, if they are numbers.
        delimiter: between several labels in a cell; None where cells are JSON lists.
        positive: the number of the class that precision, recall and F1 are about.
        cells: what stands in a cell for each of the names; empty where that is the name.
    """

    kind: LabelKind
    type: ColumnType
    names: tuple[str, ...] = ()
    mean: float = 0.0
    deviation: Annotated[float, Gt(0)] = 1.0
    delimiter: Annotated[str, MinLen(1), MaxLen(8)] | None = None
    positive: Annotated[int, Ge(0)] | None = None
    cells: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises ShapeError for fields that go with no labels: those of a file may be any."""
        count = len(self.names)
        is_consistent = [
            len(set(self.names)) == count,
            self.kind != "regression" or not count,
            len(set(self.cells or self.names)) == count,
            self.positive in (None, *range(count)),
            math.isfinite(self.deviation + self.mean),
        ]
        if not all(is_consistent):
            raise ShapeError("labels", f"expected those of a {self.kind}, got {count}")

    def task(self, pair_separator: int | None = None) -> Task:
        return Task(
            self.kind,
            max(len(self.names), 1),
            self.names,
            target_mean=self.mean,
            target_deviation=self.deviation,
            pair_separator=pair_separator,
            positive_class=1 if self.positive is None else self.positive,
        )

    def read(
        self, name: str, cells: pa.ChunkedArray, location: Location = number_of_row
    ) -> TypedColumn:
        """The labels of any rows as texts, each in one spelling.

        With a delimiter an empty cell holds no label; without, its label is missing.
        """
        texts, codes = distinct_texts(cells)
        values = [spell_label(text, self.type) for text in texts]
        if self.delimiter is not None and (codes < 0).any():
            codes = np.where(codes < 0, len(values), codes)
            values.append("")
        return merge_values(TypedColumn(name, self.type, values, codes, location))

    def split(self, text: str) -> list[str]:
        """The class in a cell; of several labels the texts between delimiters, or a JSON list of texts and numbers.

        Raises ValueError for another cell.
        """
        if self.kind == "classification":
            return [text]
        if self.delimiter is not None:
            parts = (name.strip() for name in text.split(self.delimiter))
            return list(filter(None, parts))
        try:
            items = parse_json(text, list[str | int | float | bool], "label")
        except DataError:
            expected = 'a JSON list of labels such as ["a", "b"], or data.label_delimiter'
            raise ValueError(f"expected {expected}, got {shorten(text)}") from None
        return [item if isinstance(item, str) else json.dumps(item) for item in items]

    def target(self, text: str) -> Any:
        """A number, or the numbers of the labels in a cell; raises ValueError for a label that no training row has."""
        if self.kind == "regression":
            return read_number(text)
        names = self.split(text)
        for name in names:
            if name not in self._numbers:
                raise ValueError(
                    f"unknown label {shorten(name)}, expected one of {some([*self._numbers], CHOICES)}"
                )
        return [self._numbers[name] for name in names]

    def encode(self, column: TypedColumn) -> Targets:
        """Targets of the cells; a missing one gets weight 0. Raises DataError for a cell without a target."""
        targets = column.map(self.target)
        if self.kind == "regression":
            scaled = (np.array(targets, np.float64) - self.mean) / self.deviation
            return Targets(column.codes, np.append(scaled, 0).astype(np.float32))
        if self.kind == "classification":
            return Targets(column.codes, np.array([*targets, [0]], np.int32)[:, 0])
        shape = (len(targets) + 1, len(self.names))
        held = np.zeros(shape, np.uint8)
        for code, numbers in enumerate(targets):
            held[code, numbers] = 1
        return Targets(column.codes, held)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.cells or self.names)}

    def state_dict(self) -> dict[str, object]:
        return asdict(self)


def require_fitted(labels: Labels, path: Path) -> None:
    """Raises DataError if there is nothing to predict."""
    if labels.kind != "regression" and not labels.names:
        raise DataError(f"{path}: labels: expected a name")


def spell_label(text: str, column_type: ColumnType) -> str:
    """The one spelling of a label: `1` for `1.0` where all are numbers, `true` for `True`; others as they stand."""
    try:
        return spell(column_type.read(text))
    except ValueError:
        return text


def label_type(cells: pa.ChunkedArray, options: RowOptions) -> ColumnType:
    """The type of a label column."""
    kind = options["kind"] or KINDS.get(options["task"])
    if kind is None and options["label_delimiter"] is not None:
        kind = "text"
    return replace(fit_type(cells, kind), categories=())


def label_kind(column: TypedColumn, options: RowOptions) -> LabelKind:
    """The task that the cells pose.

    `auto` is multi_label if there is a delimiter or every cell is a JSON list; regression if the cells are numbers and
    some have a fraction, or more than 50 of them differ; else classification.
    """
    if options["task"] == "single":
        return "classification"
    if options["task"] != "auto":
        return options["task"]
    if options["label_delimiter"] is not None or all(
        text.startswith("[") for text in column.values
    ):
        return "multi_label"
    if column.type.kind == "number":
        return "regression"
    if column.type.kind == "integer" and len(column.values) > MAX_AUTO_CLASSES:
        return "regression"
    return "classification"


def fit_labels(column: TypedColumn, options: RowOptions, unfitted: Labels) -> Labels:
    """Fits labels of this kind and type on the training rows. Classes are sorted: numbers by value, before text.

    Raises:
        DataError: a malformed cell, one class only, or a class for almost every row.
        ConfigError: the settings do not go together.
    """
    if unfitted.kind == "regression":
        return _fit_numbers(column, options, unfitted)
    min_names = 1
    if unfitted.kind == "classification":
        min_names = 2
        if unfitted.delimiter is not None:
            raise ConfigError("data.label_delimiter: only with data.task=multi_label")
    names = sorted(set().union(*column.map(unfitted.split)), key=_sort_key)
    if not min_names <= len(names) <= MAX_CLASSES:
        expected = f"expected {min_names} to {MAX_CLASSES:,} different labels to train on"
        raise DataError(f"{column.where(0)}: {expected}, got {len(names):,}")
    positive = options["positive_class"]
    if positive is None:
        return replace(unfitted, names=tuple(names))
    name = spell_label(str(positive), column.type)
    if len(names) != 2 or name not in names:
        listed = some(names, CHOICES)
        raise ConfigError(f"data.positive_class={positive}: expected one of two of {listed}")
    return replace(unfitted, names=tuple(names), positive=names.index(name))


def _fit_numbers(column: TypedColumn, options: RowOptions, unfitted: Labels) -> Labels:
    if options["positive_class"] is not None:
        raise ConfigError("data.positive_class: expected null for a regression")
    numbers = np.array(column.map(read_number))[column.codes]
    with np.errstate(over="ignore"):
        mean = float(numbers.mean())
        deviation = float(numbers.std())
    if not (0 < deviation < math.inf and math.isfinite(mean)):
        got = f"got standard deviation {deviation:g}"
        raise DataError(f"{column.where(0)}: expected numbers that differ, {got}")
    return replace(unfitted, mean=mean, deviation=deviation)


def _sort_key(name: str) -> tuple[bool, Decimal, str]:
    """Numbers by value, before text."""
    if is_number(name):
        return (False, Decimal(name), name)
    return (True, Decimal(0), name)


MIN_ROWS = 3  # average number for each category; fewer are no repetition
GIVEAWAY = 0.99  # share of rows whose label is that of a neighbour


def find_giveaways(columns: Mapping[str, TypedColumn], classes: np.ndarray) -> list[str]:
    """A line for each column that alone gives the label away.

    A row is judged by those next to it in the order of the column, in which equal values stand in random order.

    Args:
        columns: those that are no texts.
        classes: (N,) of each row, from 0.
    """
    lines = []
    majority = np.bincount(classes).max() / len(classes)
    random_order = permutation(len(classes), 0)
    for name, column in columns.items():
        if column.type.kind != "category":
            values = column.amounts()
        elif len(column.values) * MIN_ROWS <= len(classes):
            values = column.codes
        else:
            continue
        labels = classes[np.lexsort((random_order, values))]
        is_same = np.concatenate([[False], labels[1:] == labels[:-1], [False]])
        share = np.mean(is_same[1:] | is_same[:-1])
        if share >= GIVEAWAY and share > (1 + majority) / 2:
            lines.append(f"column {name!r} alone tells the label of nearly all training rows")
    return lines
