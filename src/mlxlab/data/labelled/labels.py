"""Labels of rows: classes, sets of labels or numbers, as they stand in a column of text."""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, TypedDict

import numpy as np

from mlxlab.data.batch import Task, TaskKind
from mlxlab.errors import DataError
from mlxlab.files.untrusted import parse_json
from mlxlab.wording import one_of

MAX_SHOWN = 40  # characters of a cell in a message
MAX_CELLS = 2**31  # labels x distinct sets of them
MAX_DELIMITER = 8  # characters

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
        """These rows only, with the values that occur in them."""
        codes = self.codes[rows]
        used = np.unique(codes[codes >= 0])
        codes = np.where(codes < 0, -1, np.searchsorted(used, codes))
        values = [self.values[code] for code in used.tolist()]
        return self._replace(
            values=values, codes=codes, location=lambda row: self.location(int(rows[row]))
        )

    def stripped(self) -> "Column":
        """Cells without white space around them; one that holds nothing else is missing."""
        texts = [text.strip() for text in self.values]
        values = list(dict.fromkeys(filter(None, texts)))
        numbers = {text: number for number, text in enumerate(values)}
        new_codes = np.array(
            [*(numbers.get(text, -1) for text in texts), -1], np.int64
        )  # -1 stays -1
        return self._replace(values=values, codes=new_codes[self.codes])

    def describe_white_space(self) -> list[str]:
        """A line if `stripped` changes labels: how many, and where the first one stands."""
        texts = [text.strip() for text in self.values]
        changes = np.array(
            [
                *(0 < len(text) < len(cell) for text, cell in zip(texts, self.values, strict=True)),
                False,
            ]
        )
        rows = np.flatnonzero(changes[self.codes])  # -1, a missing cell, is the last
        if not len(rows):
            return []
        first = self.location(int(rows[0]))
        return [
            f"{self.name}: white space around {len(rows):,} labels is ignored, the first at {first}"
        ]

    def with_empty_cells(self) -> "Column":
        """A missing cell as an empty one: where cells hold several labels, it holds none."""
        codes = np.where(self.codes < 0, len(self.values), self.codes)
        return self._replace(values=[*self.values, ""], codes=codes)

    def number(self, value: int) -> float:
        """Value number `value` as a number; raises DataError unless it is a finite one."""
        text = self.values[value]
        if is_number(text) and math.isfinite(float(text)):
            return float(text)
        hint = ", with a comma" if is_number_with_comma(text) else ""
        raise DataError(
            f"{self.where(value)}: expected a finite number, got {shorten(text)!r}{hint}"
        )

    def labels(self, value: int, delimiter: str | None) -> list[str]:
        """The labels in value number `value`: texts between delimiters, or a JSON list of texts and numbers."""
        text = self.values[value]
        if delimiter is not None:
            return list(filter(None, (name.strip() for name in text.split(delimiter))))
        try:
            items = parse_json(text, list[str | int | float | bool], "label")
        except DataError:
            expected = 'a JSON list of labels such as ["a", "b"], or data.label_delimiter'
            raise DataError(
                f"{self.where(value)}: expected {expected}, got {shorten(text)!r}"
            ) from None
        return [item if isinstance(item, str) else json.dumps(item) for item in items]


class Targets(NamedTuple):
    """Targets of rows by their distinct values."""

    codes: np.ndarray  # (N,); -1 for rows without a label
    values: np.ndarray  # (U + 1,) int32 or float32, or (U + 1, L) uint8; the last one is that of rows without a label

    def of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Targets and loss weights of these rows, as a `Batch` holds them."""
        codes = self.codes[rows]
        targets = self.values[codes]
        weights = np.empty(targets.shape, np.float32)
        weights.T[...] = codes >= 0
        return (targets.astype(np.float32) if targets.dtype == np.uint8 else targets), weights


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
        count = len(column.values)
        if self.kind == "multi_label":
            if (count + 1) * len(self.names) > MAX_CELLS:
                got = f"{count} different sets of {len(self.names)} labels"
                raise DataError(f"{column.where(0)}: {got}: expected at most {MAX_CELLS} in all")
            held = np.zeros((count + 1, len(self.names)), np.uint8)
            for code in range(count):
                held[
                    code,
                    [
                        self._index(column, code, name)
                        for name in column.labels(code, self.delimiter)
                    ],
                ] = 1
            return Targets(column.codes, held)
        if self.kind == "regression":
            numbers = [(column.number(code) - self.mean) / self.deviation for code in range(count)]
            return Targets(column.codes, np.array([*numbers, 0], np.float32))
        classes = [self._index(column, code, text) for code, text in enumerate(column.values)]
        return Targets(column.codes, np.array([*classes, 0], np.int32))

    def _index(self, column: Column, code: int, name: str) -> int:
        if self.knows(name):
            return self._numbers[name]
        raise DataError(f"{column.where(code)}: {self.describe_unknown(name)}")

    def knows(self, name: str) -> bool:
        return name in self._numbers

    def describe_unknown(self, name: str) -> str:
        """For messages: a label that is none of these."""
        known = one_of(map(repr, self.names[:8])) + (", ..." if len(self.names) > 8 else "")
        return f"unknown label {shorten(name)!r}, expected {known}"

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
    if state["delimiter"] is not None and not 0 < len(state["delimiter"]) <= MAX_DELIMITER:
        raise DataError(f"labels: expected a delimiter of 1 to {MAX_DELIMITER} characters")
    return Labels(state["kind"], names, state["mean"], state["deviation"], state["delimiter"])


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def is_number_with_comma(text: str) -> bool:
    """Whether this is a number with a decimal comma or commas between thousands: `2.710,5`, `2,710.5`."""
    pattern = r"[-+]?(\d+|\d{1,3}(\.\d{3})+),\d+|[-+]?\d{1,3}(,\d{3})+(\.\d+)?"
    return re.fullmatch(pattern, text.strip()) is not None


def shorten(text: str) -> str:
    """At most `MAX_SHOWN` characters, for messages."""
    return f"{text[:MAX_SHOWN]}..." if len(text) > MAX_SHOWN else text
