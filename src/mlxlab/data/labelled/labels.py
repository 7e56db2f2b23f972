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
from mlxlab.errors import DataError
from mlxlab.files.untrusted import parse_json

MAX_SHOWN = 40  # characters of a cell in a message

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

    def where(self, value: int) -> str:
        """Location and name of the first cell that holds value number `value`; of -1, of the first missing one."""
        return f"{self.location(int(np.argmax(self.codes == value)))}: column {self.name!r}"

    def take(self, rows: np.ndarray) -> "Column":
        """These rows only."""
        return self._replace(codes=self.codes[rows], location=lambda row: self.location(int(rows[row])))

    def without_unused_values(self) -> "Column":
        """The same cells with the values that occur in them only; none may be missing."""
        used = np.unique(self.codes)
        return self._replace(values=[self.values[code] for code in used], codes=np.searchsorted(used, self.codes))

    def with_empty_cells(self) -> "Column":
        """A missing cell as an empty one: where cells hold several labels, it holds none."""
        codes = np.where(self.codes < 0, len(self.values), self.codes)
        return self._replace(values=[*self.values, ""], codes=codes)

    def number(self, value: int) -> float:
        """Value number `value` as a number; raises DataError unless it is a finite one."""
        text = self.values[value]
        if is_number(text) and math.isfinite(float(text)):
            return float(text)
        raise DataError(f"{self.where(value)}: expected a finite number, got {shorten(text)!r}")

    def labels(self, value: int, delimiter: str | None) -> list[str]:
        """The labels in value number `value`: texts between delimiters, or a JSON list of texts and numbers."""
        text = self.values[value]
        if delimiter is not None:
            return list(filter(None, (name.strip() for name in text.split(delimiter))))
        try:
            items = parse_json(text, list[str | int | float | bool], "label")
        except DataError:
            expected = 'a JSON list of labels such as ["a", "b"], or data.label_delimiter'
            raise DataError(f"{self.where(value)}: expected {expected}, got {shorten(text)!r}") from None
        return [item if isinstance(item, str) else json.dumps(item) for item in items]


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
            return np.array((column.number(code) - self.mean) / self.deviation)
        if self.kind == "classification":
            return np.array(self._index(column, code, text))
        held = np.zeros(len(self.names), np.float32)
        for name in column.labels(code, self.delimiter):
            held[self._index(column, code, name)] = 1
        return held

    def _index(self, column: Column, code: int, name: str) -> int:
        if name in self._numbers:
            return self._numbers[name]
        near = get_close_matches(name, self.names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(map(repr, self.names[:8])) + (", ..." if len(self.names) > 8 else "")
        raise DataError(f"{column.where(code)}: unknown label {shorten(name)!r}, expected one of {known}{hint}")

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


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def shorten(text: str) -> str:
    """At most `MAX_SHOWN` characters, for messages."""
    return f"{text[:MAX_SHOWN]}..." if len(text) > MAX_SHOWN else text
