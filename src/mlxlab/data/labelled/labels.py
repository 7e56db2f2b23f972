"""Labels of rows: a class, several labels, or a number for each."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from mlxlab.data.batch import Task
from mlxlab.data.labelled.types import (
    DECIMAL_COMMA,
    ColumnType,
    Kind,
    Location,
    distinct_texts,
    fit_kind,
    infer_type,
    is_number,
    read_number,
    shorten,
    spell_number,
)
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import ShapeError, parse_json, validate
from mlxlab.wording import one_of

LabelKind = Literal["classification", "multi_label", "regression"]
MAX_AUTO_CLASSES = 50  # different whole numbers; more may be meant as classes or as numbers
MAX_CLASSES = 20_000
MAX_CELLS = 2**31  # labels x distinct sets of them
MAX_DELIMITER = 8  # characters
MAX_LISTED = 8  # labels in a message
FEW = 10  # different labels, which may be numbers and texts


@dataclass(frozen=True)
class LabelOptions:
    """How a label column is read.

    Args:
        column: its name.
        task: `auto` decides by the cells, see `label_kind`.
        fixed: the classes or labels in their order; None takes those of the cells.
        delimiter: between several labels in a cell; None where cells are JSON lists.
        positive_class: the one of two classes that precision, recall and F1 are about; None is the second one.
        kind: the type of the column; None infers it.
    """

    column: str
    task: Literal["auto", "single", "multi_label", "regression"] = "auto"
    fixed: Sequence[str | int | float] | None = None
    delimiter: str | None = None
    positive_class: str | int | float | None = None
    kind: Kind | None = None


class LabelColumn(NamedTuple):
    """A label column by its distinct texts: that of row i is `values[codes[i]]`, missing where that is -1."""

    name: str
    values: Sequence[str]
    codes: np.ndarray  # (N,) int64
    location: Location

    def where(self, value: int) -> str:
        """Location and name of the first cell that holds value number `value`."""
        return f"{self.location(int(np.argmax(self.codes == value)))}: column {self.name!r}"

    def take(self, rows: np.ndarray) -> "LabelColumn":
        """These rows only, with the values that occur in them."""
        used, codes = np.unique(self.codes[rows], return_inverse=True)
        values = [self.values[code] for code in used.tolist() if code >= 0]

        def location(row: int) -> str:
            return self.location(int(rows[row]))

        return LabelColumn(self.name, values, codes - (len(used) - len(values)), location)


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
        cells: what stands in a cell for each of them; empty where that is the name.
        mean, deviation: of the training values, if they are numbers.
        delimiter: between several labels in a cell; None where cells are JSON lists.
        positive: the number of the class that precision, recall and F1 are about.
    """

    kind: LabelKind
    type: ColumnType
    names: tuple[str, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0
    delimiter: str | None = None
    positive: int | None = None
    cells: tuple[str, ...] = ()

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

    def read(self, name: str, cells: pa.ChunkedArray, location: Location) -> LabelColumn:
        """The label column of any rows."""
        return read_labels(name, cells, self.type, self.delimiter, location)

    def encode(self, column: LabelColumn) -> Targets:
        """Targets of the cells; a missing one gets weight 0.

        Raises:
            DataError: a cell is no number, or a label that no training row has; with its location.
        """
        count = len(column.values)
        if self.kind == "multi_label":
            return Targets(column.codes, self._encode_sets(column))
        if self.kind == "regression":
            numbers = read_amounts(column)
            scaled = (numbers - self.mean) / self.deviation
            return Targets(column.codes, np.append(scaled, 0).astype(np.float32))
        classes = [self._index(column, code, column.values[code]) for code in range(count)]
        return Targets(column.codes, np.array([*classes, 0], np.int32))

    def _encode_sets(self, column: LabelColumn) -> np.ndarray:
        """(U + 1, L) uint8: which labels each value holds."""
        count = len(column.values)
        if (count + 1) * len(self.names) > MAX_CELLS:
            got = f"{count} different sets of {len(self.names)} labels"
            raise DataError(f"{column.where(0)}: {got}: expected at most {MAX_CELLS} in all")
        held = np.zeros((count + 1, len(self.names)), np.uint8)
        for code in range(count):
            for name in split_labels(column, code, self.delimiter):
                held[code, self._index(column, code, name)] = 1
        return held

    def fault(self, column: LabelColumn, code: int) -> str:
        """What is wrong with value number `code`; "" if it has a target."""
        text = column.values[code]
        if self.kind == "regression":
            return "" if is_number(text) else f"expected a finite number, got {shorten(text)}"
        names = [text]
        if self.kind == "multi_label":
            names = split_labels(column, code, self.delimiter)
        unknown = [name for name in names if name not in self._numbers]
        if not unknown:
            return ""
        known = one_of(map(repr, list(self._numbers)[:MAX_LISTED]))
        more = ", ..." if len(self.names) > MAX_LISTED else ""
        return f"unknown label {shorten(unknown[0])}, expected {known}{more}"

    def _index(self, column: LabelColumn, code: int, name: str) -> int:
        if name not in self._numbers:
            raise DataError(f"{column.where(code)}: {self.fault(column, code)}")
        return self._numbers[name]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.cells or self.names)}

    def state_dict(self) -> dict[str, object]:
        return asdict(self)


def restore_labels(state: Any) -> Labels:
    """The inverse of `state_dict`; raises DataError if `Labels.state_dict` could not have returned it."""
    try:
        labels: Labels = validate(state, Labels)
    except ShapeError as error:
        raise DataError(f"labels: {error}") from None
    names = labels.names
    if len(set(names)) < len(names) or (labels.kind == "regression") != (not names):
        raise DataError(f"labels of {labels.kind}: expected distinct names, got {len(names)}")
    if not (labels.deviation > 0 and math.isfinite(labels.deviation + labels.mean)):
        raise DataError(f"labels: expected a positive deviation, got {labels.deviation}")
    if labels.cells and len(set(labels.cells)) != len(names):
        raise DataError(f"labels: expected {len(names)} distinct cells, got {len(labels.cells)}")
    if labels.delimiter is not None and not 0 < len(labels.delimiter) <= MAX_DELIMITER:
        raise DataError(f"labels: expected a delimiter of 1 to {MAX_DELIMITER} characters")
    if labels.positive is not None and labels.positive not in range(len(names)):
        raise DataError(f"labels: expected a class below {len(names)}, got {labels.positive}")
    return labels


def read_labels(
    name: str,
    cells: pa.ChunkedArray,
    column_type: ColumnType,
    delimiter: str | None,
    location: Location,
) -> LabelColumn:
    """The labels of rows, each in one spelling.

    Args:
        delimiter: with one, an empty cell holds no label; without, its label is missing.
    """
    texts, codes = distinct_texts(cells)
    names = [spell_label(text, column_type) for text in texts]
    values = dict.fromkeys(names)
    if delimiter is not None and (codes < 0).any():
        values[""] = None
    numbers = {value: number for number, value in enumerate(values)}
    code_of = [numbers[value] for value in names]
    missing = numbers.get("", -1)
    return LabelColumn(name, list(values), np.array([*code_of, missing], np.int64)[codes], location)


def spell_label(text: str, column_type: ColumnType) -> str:
    """The one spelling of a label: `1` for `1.0` where all are numbers, `true` for `True`."""
    if column_type.kind == "boolean":
        return text.casefold()
    if column_type.kind in ("integer", "number") or column_type.numeric:
        return spell_number(text)
    return text


def label_type(cells: pa.ChunkedArray, options: LabelOptions, location: Location) -> ColumnType:
    """The type of a label column; raises DataError if most of many different labels are numbers, but not all."""
    if options.kind is not None:
        return replace(fit_kind(options.kind, cells), categories=())
    if options.task == "multi_label" or options.delimiter is not None:
        return ColumnType("text")
    if options.task == "regression":
        return ColumnType("number")
    texts, _ = distinct_texts(cells)
    numbers = sum(map(is_number, texts))
    if len(texts) <= FEW and 0 < numbers < len(texts):
        return ColumnType("category")
    return replace(infer_type(options.column, cells, location), categories=())


def label_kind(column: LabelColumn, column_type: ColumnType, options: LabelOptions) -> LabelKind:
    """The task that the cells pose.

    `auto` is multi_label if there is a delimiter or every cell is a JSON list; regression if the cells are numbers and
    some have a fraction; classification for text and for at most 50 different whole numbers.

    Raises ConfigError if auto cannot decide.
    """
    if options.task == "single":
        return "classification"
    if options.task != "auto":
        return options.task
    if options.delimiter is not None or all(text.startswith("[") for text in column.values):
        return "multi_label"
    if options.fixed is not None:
        return "classification"
    if column_type.kind == "number":
        return "regression"
    if column_type.kind != "integer" or len(column.values) <= MAX_AUTO_CLASSES:
        return "classification"
    got = f"{len(column.values):,} different whole numbers in {len(column.codes):,} rows"
    expected = "expected data.task=regression, or single for classes"
    raise ConfigError(f"data.task=auto: {column.where(0)}: {got}: {expected}")


def fit_labels(
    column: LabelColumn, column_type: ColumnType, options: LabelOptions, kind: LabelKind
) -> Labels:
    """Fits labels on the training rows. Classes are sorted: numbers by value, before text.

    Raises:
        DataError: a malformed cell, one class only, or a class for almost every row.
        ConfigError: the settings do not go together.
    """
    names = _fixed_names(options, column_type, kind)
    if kind == "classification" and options.delimiter is not None:
        message = f"data.label_delimiter={options.delimiter!r}: only with data.task=multi_label"
        raise ConfigError(message)
    if kind == "regression":
        return _fit_numbers(column, column_type, options)
    if names is None:
        names = sorted(_occurring(column, kind, options.delimiter), key=_sort_key)
        _check_classes(column, kind, names)
    positive = _positive_class(names, column_type, options)
    return Labels(kind, column_type, tuple(names), delimiter=options.delimiter, positive=positive)


def _occurring(column: LabelColumn, kind: LabelKind, delimiter: str | None) -> list[str]:
    """The different labels of the cells."""
    if kind == "classification":
        return list(column.values)
    cells = (split_labels(column, code, delimiter) for code in range(len(column.values)))
    return list(dict.fromkeys(chain.from_iterable(cells)))


def _fixed_names(
    options: LabelOptions, column_type: ColumnType, kind: LabelKind
) -> list[str] | None:
    """The names of `data.labels`; ConfigError if they cannot be those of such a task."""
    if options.fixed is None:
        return None
    if kind == "regression":
        raise ConfigError("data.labels: expected null for a regression, whose labels are numbers")
    names = [spell_label(str(name), column_type) for name in options.fixed]
    min_names = 1 if kind == "multi_label" else 2
    if len(set(names)) < len(names) or len(names) < min_names:
        got = ", ".join(names) or "none"
        raise ConfigError(f"data.labels: expected at least {min_names} different names, got {got}")
    return names


def _positive_class(
    names: Sequence[str], column_type: ColumnType, options: LabelOptions
) -> int | None:
    if options.positive_class is None:
        return None
    name = spell_label(str(options.positive_class).strip(), column_type)
    if isinstance(options.positive_class, bool):
        name = name.casefold()
    if len(names) != 2 or name not in names:
        listed = ", ".join(names[:MAX_LISTED])
        got = f"expected one of two classes, got {listed}"
        raise ConfigError(f"data.positive_class={options.positive_class}: {got}")
    return names.index(name)


def _fit_numbers(column: LabelColumn, column_type: ColumnType, options: LabelOptions) -> Labels:
    if options.positive_class is not None:
        raise ConfigError("data.positive_class: expected null for a regression")
    numbers = read_amounts(column)[column.codes]
    with np.errstate(over="ignore"):
        mean = float(numbers.mean())
        deviation = float(numbers.std())
    if not math.isfinite(mean + deviation):
        raise DataError(f"{column.where(0)}: the numbers are too large to standardise")
    if not deviation:
        raise DataError(f"{column.where(0)}: every training row holds {column.values[0]}")
    return Labels("regression", column_type, mean=mean, deviation=deviation)


def read_amounts(column: LabelColumn) -> np.ndarray:
    """(U,) the values as numbers; raises DataError with the location of one that is none."""
    amounts: list[float] = []
    for code, text in enumerate(column.values):
        try:
            amounts.append(read_number(text))
        except ValueError as error:
            hint = ", with a comma" if DECIMAL_COMMA.fullmatch(text) else ""
            raise DataError(f"{column.where(code)}: {error}{hint}") from None
    return np.array(amounts)


def split_labels(column: LabelColumn, code: int, delimiter: str | None) -> list[str]:
    """The labels in value number `code`: texts between delimiters, or a JSON list of texts and numbers."""
    text = column.values[code]
    if delimiter is not None:
        parts = (name.strip() for name in text.split(delimiter))
        return list(filter(None, parts))
    try:
        items = parse_json(text, list[str | int | float | bool], "label")
    except DataError:
        expected = 'a JSON list of labels such as ["a", "b"], or data.label_delimiter'
        message = f"{column.where(code)}: expected {expected}, got {shorten(text)}"
        raise DataError(message) from None
    return [item if isinstance(item, str) else json.dumps(item) for item in items]


def _check_classes(column: LabelColumn, kind: LabelKind, names: Sequence[str]) -> None:
    rows = len(column.codes)
    if not names:
        raise DataError(f"{column.where(0)}: no label in any of {rows:,} training rows")
    if len(names) == 1 and kind == "classification":
        got = f"one class only, {shorten(names[0])}, in all {rows:,} training rows"
        raise DataError(f"{column.where(0)}: {got}")
    is_id = kind == "classification" and too_many_classes(len(names), rows)
    if is_id or len(names) > MAX_CLASSES:
        way_out = "is it an id?"
        if any(map(is_number, names)):
            way_out = "is it an id? (data.task=regression predicts numbers)"
        got = f"{len(names):,} classes in {rows:,} training rows"
        raise DataError(f"{column.where(0)}: {got}: {way_out}")


def too_many_classes(classes: int, rows: int) -> bool:
    """Whether these are rather ids than classes."""
    return classes > MAX_CLASSES or classes > max(MAX_AUTO_CLASSES, rows // 2)


def _sort_key(name: str) -> tuple[bool, float, str]:
    """Numbers by value, whole ones to their last digit, before text."""
    if not is_number(name):
        return (True, 0, name)
    value = int(name) if name.lstrip("+-").isdecimal() else float(name)
    return (False, value, name)
