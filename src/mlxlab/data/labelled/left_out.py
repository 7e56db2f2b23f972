"""Rows that cannot be used, which `data.on_error=skip` leaves out up to `data.max_left_out` of a source."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mlxlab.data.labelled.labels import LabelColumn, Labels
from mlxlab.data.labelled.rows import Part, Rows
from mlxlab.data.labelled.types import ColumnType, distinct_texts
from mlxlab.data.sources.block import OnError
from mlxlab.errors import DataError

LEFT_OUT = " and are left out"  # in the line on the rows of a source
MALFORMED = "are malformed"
DEFAULT_FRACTION = 0.01  # of data.max_left_out


class Fault(NamedTuple):
    """Rows that cannot be used because of a cell in this column."""

    column: str
    reason: str  # such as "have no label"
    rows: np.ndarray  # (N,) True where
    message: str  # what is wrong with the first of them


class Faults:
    """The rows of some sources that cannot be used, by fault.

    Args:
        max_fraction: of the rows of a source, malformed ones included, that may be left out.
    """

    def __init__(self, rows: Rows, on_error: OnError, max_fraction: float) -> None:
        self.rows = rows
        self.on_error = on_error
        self.max_fraction = max_fraction
        self.faults: list[Fault] = []

    @property
    def usable(self) -> np.ndarray:
        """(N,) True for rows without a fault."""
        usable = np.ones(len(self.rows), bool)
        for fault in self.faults:
            usable &= ~fault.rows
        return usable

    def add(self, column: str, reason: str, rows: np.ndarray, message: str) -> None:
        """Counts these rows, (N,) True where, as unusable."""
        if rows.any():
            self.faults.append(Fault(column, reason, rows, message))

    def add_missing(
        self, labels: LabelColumn, required: Sequence[str], time_column: str | None = None
    ) -> None:
        """Counts the rows without a label, without one of these texts, or of the first source without a time."""
        self.add(labels.name, "have no label", labels.codes < 0, "a row without a label")
        for name in required:
            self.add(name, "have an empty text", self.rows.blank(name), "an empty text")
        if time_column is not None:
            is_first = np.arange(len(self.rows)) < self.rows.starts[1]
            blank = self.rows.blank(time_column) & is_first
            self.add(time_column, "have no time", blank, "a row without a time")

    def add_unknown_labels(self, column: LabelColumn, labels: Labels) -> None:
        """Counts the rows with a label that no training row has, or that is no number."""
        messages = [labels.fault(column, code) for code in range(len(column.values))]
        is_amount = labels.kind == "regression"
        reason = "have a label that is no number" if is_amount else "have an unknown label"
        self._add_values(column.name, reason, messages, column.codes)

    def add_unreadable(self, types: Mapping[str, ColumnType]) -> None:
        """Counts the rows with a cell that is not of the type of its column."""
        for name, column_type in types.items():
            if column_type.kind not in ("text", "category"):
                texts, codes = distinct_texts(self.rows.column(name))
                messages = [_fault_of(text, column_type) for text in texts]
                reason = f"have a cell that is no {column_type.kind}"
                self._add_values(name, reason, messages, codes)

    def _add_values(
        self, column: str, reason: str, messages: Sequence[str], codes: np.ndarray
    ) -> None:
        """Counts the rows whose value has a message."""
        is_faulty = np.array([*map(bool, messages), False])[codes]
        if is_faulty.any():
            self.add(column, reason, is_faulty, messages[codes[np.argmax(is_faulty)]])

    def check(self) -> "list[LeftOut]":
        """The rows that are left out, by source.

        Raises:
            DataError: there are such rows and `on_error` is strict, or a source has more than `max_fraction` of them.
        """
        usable = self.usable
        if self.on_error == "strict" and not usable.all():
            raise DataError(self._describe(usable))
        left_out: list[LeftOut] = []
        for number, part in enumerate(self.rows.parts):
            span = slice(*self.rows.starts[number : number + 2])
            if part.malformed.num_rows or not usable[span].all():
                left_out.append(self._left_out(part, span, ~usable[span]))
                left_out[-1].check(self.max_fraction)
        return left_out

    def _describe(self, usable: np.ndarray) -> str:
        """Every kind of fault, so that one look mends them all."""
        texts: list[str] = []
        for column, _, rows, message in self.faults:
            where = f"{self.rows.location(int(np.argmax(rows)))}: column {column!r}"
            texts.append(f"{where}: {message} ({int(rows.sum()):,} of {len(rows):,} rows)")
        parts = np.split(usable, self.rows.starts[1:-1])
        largest = max(1 - part.mean() for part in parts if len(part))
        return "; ".join(texts) + way_to_leave_out(largest)

    def _left_out(self, part: Part, span: slice, unusable: np.ndarray) -> "LeftOut":
        reasons = [fault.reason for fault in self.faults if fault.rows[span].any()]
        if part.malformed.num_rows:
            reasons.append(MALFORMED)
        first = part.first_left_out(int(np.argmax(unusable)) if unusable.any() else None)
        count = int(unusable.sum()) + part.malformed.num_rows
        total = len(part.table) + part.malformed.num_rows
        return LeftOut(part.source.name, count, total, list(dict.fromkeys(reasons)), first)


class LeftOut(NamedTuple):
    """Rows of a source that are left out; `first` locates one of them, if it could be read."""

    source: str
    left_out: int
    rows: int  # of the source
    reasons: list[str]
    first: str

    def describe(self) -> str:
        """A line for the log and the report."""
        first = f", the first at {self.first}" if self.first else ""
        return f"{self._counted()}{LEFT_OUT}{first}"

    def check(self, max_fraction: float) -> None:
        """Raises DataError if these are a larger fraction of the rows."""
        share = self.left_out / self.rows
        if share == 1:
            raise DataError(f"{self._counted()}: no row is left")
        if share > max_fraction:
            limit = f"more than data.max_left_out={max_fraction:g}"
            raise DataError(f"{self._counted()}, {limit}{way_to_leave_out(share)}")

    def _counted(self) -> str:
        share = 100 * self.left_out / self.rows
        percent = f"{share:.0f}" if share >= 10 else f"{share:.2g}"
        counts = f"{self.left_out:,} of {self.rows:,} rows ({percent} %)"
        return f"{self.source}: {counts} {' or '.join(self.reasons)}"


def way_to_leave_out(fraction: float) -> str:
    """The keys with which this fraction of the rows is left out, in a message; "" if that is all of them."""
    needed = math.ceil(100 * fraction - 1e-9) / 100
    if needed >= 1:
        return ""
    limit = f" data.max_left_out={needed:g}" if fraction > DEFAULT_FRACTION else ""
    return f"; to leave them out: data.on_error=skip{limit}"


def _fault_of(text: str, column_type: ColumnType) -> str:
    """What is wrong with a cell; "" if its type reads it."""
    try:
        column_type.read(text)
    except ValueError as error:
        return str(error)
    return ""
