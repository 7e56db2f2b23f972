"""Fits labels on the training rows: what kind of task it is, and which classes there are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlxlab.data.batch import TaskKind
from mlxlab.data.labelled.labels import Column, Labels, is_number, is_number_with_comma, shorten
from mlxlab.errors import ConfigError, DataError

TaskName = Literal["auto", "single", "multi_label", "regression"]
MAX_AUTO_CLASSES = (
    50  # whole numbers with more distinct values may be meant as classes or as numbers
)
MAX_CLASSES = 20_000
MOSTLY = 0.9  # of the cells are numbers: the others are probably faults


@dataclass(frozen=True)
class LabelOptions:
    """How a label column is read.

    Args:
        column: its name.
        task: `auto` decides by the cells, see `label_kind`.
        fixed: the classes or labels in their order; None takes those of the cells.
        delimiter: between several labels in a cell; None where cells are JSON lists.
    """

    column: str
    task: TaskName
    fixed: Sequence[str | int | float] | None
    delimiter: str | None

    @property
    def names(self) -> list[str] | None:
        return None if self.fixed is None else [str(name) for name in self.fixed]


def fit_labels(column: Column, options: LabelOptions, kind: TaskKind) -> Labels:
    """Fits labels on the cells of the training rows. Classes are sorted: numbers by value, before text.

    Raises:
        DataError: a missing or malformed cell, one class only, or a class for almost every row.
        ConfigError: the settings do not go together.
    """
    names, delimiter = options.names, options.delimiter
    _check_fixed(names, kind)
    if (column.codes < 0).any():
        raise DataError(f"{column.where(-1)}: a row without a label")
    if not len(column.codes):
        raise DataError(f"column {column.name!r}: no training row has a label")
    if kind == "regression":
        return _fit_numbers(column, names)
    if kind == "classification" and delimiter is not None:
        raise ConfigError(f"data.label_delimiter={delimiter!r}: only with data.task=multi_label")
    occurring = list(column.values)
    if kind == "multi_label":
        cells = (column.labels(code, delimiter) for code in range(len(column.values)))
        occurring = list(dict.fromkeys(name for names_of_cell in cells for name in names_of_cell))
    if names is None:
        names = sorted(occurring, key=_sort_key)
        _check_classes(column, kind, names)
    labels = Labels(kind, tuple(names), delimiter=delimiter)
    labels.encode(column)  # refuses labels that `fixed` lacks
    return labels


def label_kind(column: Column, options: LabelOptions) -> TaskKind:
    """The task that the cells pose.

    `auto` is multi_label if there is a delimiter or every cell is a JSON list; regression if all cells are numbers and
    some have a fraction; single for text and for at most 50 different whole numbers.

    Raises:
        DataError: some cells are numbers and few are not.
        ConfigError: auto cannot decide.
    """
    if options.task != "auto":
        return "classification" if options.task == "single" else options.task
    names = options.names
    if options.delimiter is not None or all(text.startswith("[") for text in column.values):
        return "multi_label"
    numbers = [is_number(text) for text in column.values]
    if (
        names is None
        and sum(numbers) > MOSTLY * len(numbers)
        and len(numbers) > 10
        and not all(numbers)
    ):
        code = numbers.index(False)
        got = f"{shorten(column.values[code])!r} among numbers"
        raise DataError(f"{column.where(code)}: mixed types: {got}")
    if names is not None or not all(numbers):
        return "classification"
    if any(not column.number(code).is_integer() for code in range(len(numbers))):
        return "regression"
    if len(numbers) <= MAX_AUTO_CLASSES:
        return "classification"
    got = f"{len(numbers):,} different whole numbers in {len(column.codes):,} rows"
    raise ConfigError(
        f"data.task=auto: {column.where(0)}: {got}: expected data.task=regression, or single for classes"
    )


def _fit_numbers(column: Column, names: Sequence[str] | None) -> Labels:
    if names is not None:
        raise ConfigError("data.labels: expected null for a regression, whose labels are numbers")
    values = np.array([column.number(code) for code in range(len(column.values))])
    numbers = values[column.codes]
    with np.errstate(over="ignore"):
        mean, deviation = float(numbers.mean()), float(numbers.std())
    if not math.isfinite(mean + deviation):
        raise DataError(f"{column.where(0)}: the numbers are too large to standardise")
    if not deviation:
        raise DataError(f"{column.where(0)}: every training row holds {column.values[0]}")
    return Labels("regression", mean=mean, deviation=deviation)


def _check_fixed(names: Sequence[str] | None, kind: TaskKind) -> None:
    least = 1 if kind == "multi_label" else 2
    if (
        names is not None
        and kind != "regression"
        and (len(set(names)) < len(names) or len(names) < least)
    ):
        raise ConfigError(
            f"data.labels: expected at least {least} different names, got {', '.join(names) or 'none'}"
        )


def _check_classes(column: Column, kind: TaskKind, names: Sequence[str]) -> None:
    rows, numbers = len(column.codes), dict[float, str]()
    for name in filter(is_number, names):
        if (other := numbers.setdefault(float(name), name)) != name:
            raise DataError(f"{column.where(0)}: labels {other!r} and {name!r} are the same number")
    if len(names) == 1 and kind == "classification":
        raise DataError(
            f"{column.where(0)}: one class only, {shorten(names[0])!r}, in all {rows:,} training rows"
        )
    if not names:
        raise DataError(f"{column.where(0)}: no label in any of {rows:,} training rows")
    if len(names) > MAX_CLASSES or (
        kind == "classification" and too_many_classes(len(names), rows)
    ):
        way_out = "is it an id?"
        if all(map(is_number_with_comma, names)):
            way_out = f"numbers with a comma, such as {names[0]!r}; expected a decimal point and no other separator"
        elif any(map(is_number, names)):
            way_out = "is it an id? (data.task=regression predicts numbers)"
        raise DataError(
            f"{column.where(0)}: {len(names):,} classes in {rows:,} training rows: {way_out}"
        )


def too_many_classes(classes: int, rows: int) -> bool:
    """Whether these are rather ids than classes."""
    return classes > MAX_CLASSES or classes > max(MAX_AUTO_CLASSES, rows // 2)


def _sort_key(name: str) -> tuple[bool, float, str]:
    value = float(name) if is_number(name) else math.nan
    return (not math.isfinite(value), value if math.isfinite(value) else 0.0, name)
