"""Labels of rows: classes, sets of labels or numbers, as they stand in a column of text."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Literal, NamedTuple, TypedDict

import numpy as np

from mlxlab.data.batch import Task, TaskKind
from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import ShapeError, parse_json, validate

TaskName = Literal["auto", "single", "multi_label", "regression"]
MAX_AUTO_CLASSES = 50  # whole numbers with more distinct values may be meant as classes or as numbers
MAX_CLASSES = 20_000
MAX_SHOWN = 40
MOSTLY = 0.9  # of the cells are numbers: the others are probably faults

Location = Callable[[int], str]  # of a row, for messages


class LabelState(TypedDict):
    """Labels in data.json."""

    kind: Literal["classification", "multi_label", "regression"]
    names: list[str]
    mean: float
    deviation: float
    delimiter: str | None


class Column(NamedTuple):
    """The cells of a label column by their distinct values: cell i is `values[codes[i]]`, missing where that is -1."""

    name: str
    values: Sequence[str]
    codes: np.ndarray  # (N,) int64
    location: Location

    def first(self, value: int) -> str:
        """The location of the first row that holds value number `value`; of -1, of the first missing cell."""
        return self.location(int(np.argmax(self.codes == value)))

    def take(self, rows: np.ndarray) -> "Column":
        """These rows only."""
        return self._replace(codes=self.codes[rows], location=lambda row: self.location(int(rows[row])))


class Targets(NamedTuple):
    """Targets and loss weights as a `Batch` holds them, by the distinct value of each row."""

    codes: np.ndarray  # (N,)
    values: np.ndarray  # (U + 1,) or (U + 1, L); the last one is that of rows without a label
    weights: np.ndarray  # like values

    def of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Targets and weights of these rows."""
        codes = self.codes[rows]
        return self.values[codes], self.weights[codes]


@dataclass(frozen=True)
class Labels:
    """What the label column of the training rows holds; encodes that of any rows.

    Args:
        kind: as `Task.kind`.
        names: the classes or labels, in the order of the model's outputs; empty for numbers.
        mean, deviation: of the training values, if they are numbers.
        delimiter: between several labels in a cell; None where cells are JSON lists.
    """

    kind: TaskKind
    names: tuple[str, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0
    delimiter: str | None = None

    def task(self, pair_separator: int | None = None) -> Task:
        outputs = len(self.names) if self.names else 1
        return Task(
            self.kind,
            outputs,
            self.names,
            target_mean=self.mean,
            target_deviation=self.deviation,
            pair_separator=pair_separator,
        )

    def encode(self, column: Column) -> Targets:
        """Targets of the cells; a missing one gets weight 0.

        Raises:
            DataError: a cell is no number, or a label that no training row has; with its location.
        """
        values = [self._encode(column, code, text) for code, text in enumerate(column.values)]
        dtype = np.int32 if self.kind == "classification" else np.float32
        targets = np.array([*values, np.zeros_like(values[0]) if values else self._no_label], dtype)
        weights = np.ones(targets.shape, np.float32)
        weights[-1] = 0
        return Targets(column.codes, targets, weights)

    @property
    def _no_label(self) -> np.ndarray:
        return np.zeros(len(self.names) if self.kind == "multi_label" else (), np.float32)

    def _encode(self, column: Column, code: int, text: str) -> np.ndarray:
        if self.kind == "regression":
            return np.array((_number(column, code, text) - self.mean) / self.deviation)
        if self.kind == "classification":
            return np.array(self._index(column, code, text))
        held = np.zeros(len(self.names), np.float32)
        for name in _names(column, code, text, self.delimiter):
            held[self._index(column, code, name)] = 1
        return held

    def _index(self, column: Column, code: int, name: str) -> int:
        if name in self._numbers:
            return self._numbers[name]
        near = get_close_matches(name, self.names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(map(repr, self.names[:8])) + (", ..." if len(self.names) > 8 else "")
        where = f"{column.first(code)}: column {column.name!r}"
        raise DataError(f"{where}: unknown label {shorten(name)!r}, expected one of {known}{hint}")

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def state_dict(self) -> LabelState:
        return {
            "kind": self.kind,  # type: ignore[typeddict-item]
            "names": list(self.names),
            "mean": self.mean,
            "deviation": self.deviation,
            "delimiter": self.delimiter,
        }


def restore_labels(state: LabelState) -> Labels:
    """The inverse of `state_dict`; raises DataError if `Labels.state_dict` could not have returned it."""
    names = tuple(state["names"])
    if len(set(names)) < len(names) or (state["kind"] == "regression") != (not names):
        raise DataError(f"labels of {state['kind']}: expected distinct names, got {len(names)}")
    if not (state["deviation"] > 0 and math.isfinite(state["deviation"] + state["mean"])):
        raise DataError(f"labels: expected a positive deviation, got {state['deviation']}")
    return Labels(state["kind"], names, state["mean"], state["deviation"], state["delimiter"])


def fit_labels(column: Column, task: TaskName, names: Sequence[str] | None, delimiter: str | None) -> Labels:
    """Fits labels on the cells of the training rows.

    Classes are sorted: numbers by value, before text. `task` auto is multi_label if there is a delimiter or every cell
    is a JSON list; regression if all cells are numbers and some have a fraction; single for text and for at most 50
    different whole numbers.

    Args:
        names: fixes the classes or labels and their order.

    Raises:
        DataError: a missing or malformed cell, one class only, or a class for almost every row.
        ConfigError: the settings do not go together, or auto cannot decide.
    """
    if (column.codes < 0).any():
        raise DataError(f"{column.first(-1)}: no label in column {column.name!r}")
    if not len(column.codes):
        raise DataError(f"column {column.name!r}: no training row has a label")
    used = np.unique(column.codes)
    column = column._replace(values=[column.values[code] for code in used], codes=np.searchsorted(used, column.codes))
    kind = _kind(column, task, names, delimiter)
    if kind == "regression":
        return _fit_numbers(column, names)
    if kind == "classification" and delimiter is not None:
        raise ConfigError(f"data.label_delimiter={delimiter!r}: only with data.task=multi_label")
    found = list(column.values)
    if kind == "multi_label":
        cells = enumerate(column.values)
        found = list(dict.fromkeys(name for code, text in cells for name in _names(column, code, text, delimiter)))
    if names is None:
        names = sorted(found, key=_sort_key)
        _check_classes(column, kind, names)
    labels = Labels(kind, tuple(names), delimiter=delimiter)
    labels.encode(column)  # refuses labels that `names` lacks
    return labels


def _kind(column: Column, task: TaskName, names: Sequence[str] | None, delimiter: str | None) -> TaskKind:
    if task != "auto":
        return "classification" if task == "single" else task
    if delimiter is not None or all(text.startswith("[") for text in column.values):
        return "multi_label"
    numbers = [_is_number(text) for text in column.values]
    if names is None and sum(numbers) > MOSTLY * len(numbers) and len(numbers) > 10 and not all(numbers):
        code = numbers.index(False)
        got = f"{shorten(column.values[code])!r} among numbers"
        raise DataError(f"{column.first(code)}: column {column.name!r}: mixed types: {got}")
    if names is not None or not all(numbers):
        return "classification"
    if any(not float(text).is_integer() for text in column.values if math.isfinite(float(text))):
        return "regression"
    if len(numbers) <= MAX_AUTO_CLASSES:
        return "classification"
    got = f"{len(numbers)} different whole numbers in {len(column.codes)} rows"
    raise ConfigError(
        f"data.task=auto: column {column.name!r} holds {got}: expected data.task=regression, or single for classes"
    )


def _fit_numbers(column: Column, names: Sequence[str] | None) -> Labels:
    if names is not None:
        raise ConfigError("data.labels: expected null for a regression, whose labels are numbers")
    values = np.array([_number(column, code, text) for code, text in enumerate(column.values)])
    if len(values) == 1:
        raise DataError(f"column {column.name!r}: every training row holds {column.values[0]}")
    numbers = values[column.codes]
    return Labels("regression", mean=float(numbers.mean()), deviation=float(numbers.std()))


def _check_classes(column: Column, kind: TaskKind, names: Sequence[str]) -> None:
    rows = len(column.codes)
    if len(names) == 1:
        raise DataError(f"column {column.name!r}: one class only, {shorten(names[0])!r}, in all {rows} training rows")
    if not names:
        raise DataError(f"column {column.name!r}: no label in any of {rows} training rows")
    if len(names) > MAX_CLASSES or (kind == "classification" and len(names) > max(MAX_AUTO_CLASSES, rows // 2)):
        way_out = "is it an id? (data.task=regression predicts numbers)"
        raise DataError(f"column {column.name!r}: {len(names)} classes in {rows} training rows: {way_out}")


def _names(column: Column, code: int, text: str, delimiter: str | None) -> list[str]:
    """The labels of a cell: a JSON list of texts and numbers, or texts between delimiters."""
    if delimiter is not None:
        return list(filter(None, (name.strip() for name in text.split(delimiter))))
    try:
        items = validate(parse_json(text, list[str | int | float | bool], "label"), list[str | int | float | bool])
    except (DataError, ShapeError):
        expected = 'a JSON list of labels such as ["a", "b"], or data.label_delimiter'
        got = shorten(text)
        raise DataError(f"{column.first(code)}: column {column.name!r}: expected {expected}, got {got!r}") from None
    return [item if isinstance(item, str) else json.dumps(item) for item in items]


def _number(column: Column, code: int, text: str) -> float:
    if _is_number(text) and math.isfinite(float(text)):
        return float(text)
    got = shorten(text)
    raise DataError(f"{column.first(code)}: column {column.name!r}: expected a finite number, got {got!r}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _sort_key(name: str) -> tuple[bool, float, str]:
    is_number = _is_number(name) and math.isfinite(float(name))
    return (not is_number, float(name) if is_number else 0.0, name)


def shorten(text: str) -> str:
    """At most `MAX_SHOWN` characters, for messages."""
    return f"{text[:MAX_SHOWN]}..." if len(text) > MAX_SHOWN else text
