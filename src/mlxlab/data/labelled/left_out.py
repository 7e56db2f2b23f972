"""Rows that cannot be used, which `data.on_error=skip` leaves out up to `data.max_left_out` of a source."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mlxlab.data.labelled.labelled_rows import LabelledRows
from mlxlab.data.labelled.labels import Column, Labels, is_number, shorten
from mlxlab.data.labelled.rows import Rows
from mlxlab.data.text.document import MAX_MALFORMED_FRACTION, OnError
from mlxlab.errors import DataError

LEFT_OUT = " and are left out"  # in the line on the rows of a source
MALFORMED = "are malformed"


class Fault(NamedTuple):
    """Rows that cannot be used because of a cell in this column."""

    column: str
    reason: str  # "have no label"
    rows: np.ndarray  # (N,) True where
    describe: Callable[[str], str]  # the fault of a cell, for messages


class LeftOut(NamedTuple):
    """Rows of a source that are left out; `first` locates one of them, if it could be read."""

    source: str
    left_out: int
    rows: int  # of the source
    reasons: list[str]
    first: str

    def describe(self) -> str:
        """A line for the log and the report."""
        return f"{self._counted()}{LEFT_OUT}{self.first and f', the first at {self.first}'}"

    def check(self, max_fraction: float) -> None:
        """Raises DataError if these are a larger fraction of the rows."""
        if self.left_out > max_fraction * self.rows:
            if self.left_out == self.rows:
                raise DataError(f"{self._counted()}: no row is left")
            limit = f"more than data.max_left_out={max_fraction:g}"
            raise DataError(
                f"{self._counted()}, {limit}{way_to_leave_out(self.left_out / self.rows)}"
            )

    def _counted(self) -> str:
        share = 100 * self.left_out / self.rows
        percent = f"{share:.0f}" if share >= 10 else f"{share:.2g}"
        return f"{self.source}: {self.left_out:,} of {self.rows:,} rows ({percent} %) {' or '.join(self.reasons)}"


def leave_out(
    rows: LabelledRows,
    labels: Column,
    required: Sequence[str],
    on_error: OnError,
    max_fraction: float,
    others: Sequence[Fault] = (),
    find_single_rows: Callable[[np.ndarray], str] = lambda usable: "",
) -> tuple[np.ndarray, list[LeftOut]]:
    """(N,) True for rows with a label and texts, and those that are left out, by source.

    Args:
        required: the columns that may not be blank.
        max_fraction: of the rows of a source, malformed ones included, that may be left out.
        others: further faults.
        find_single_rows: the fault of classes of one row among the usable rows of the first source, or "".

    Raises:
        DataError: there are such rows and `on_error` is strict, or a source has more than `max_fraction` of them.
    """
    faults = [
        Fault(labels.name, "have no label", labels.codes < 0, lambda cell: "a row without a label")
    ]
    faults += [
        Fault(each, "have an empty text", rows.blank(each), lambda cell: "an empty text")
        for each in required
    ]
    faults += others
    usable = ~np.logical_or.reduce([fault.rows for fault in faults])
    if on_error == "strict":
        _refuse(rows, faults, ~usable, find_single_rows)
    left_out = []
    for part, start, end in zip(
        rows.parts, rows.starts[:-1].tolist(), rows.starts[1:].tolist(), strict=True
    ):
        unusable = ~usable[start:end]
        if not part.malformed and not unusable.any():
            continue
        reasons = [fault.reason for fault in faults if fault.rows[start:end].any()]
        each = _describe_part(part, unusable, list(dict.fromkeys(reasons)))
        each.check(max_fraction)
        left_out.append(each)
    return usable, left_out


def no_time(rows: LabelledRows, name: str) -> Fault:
    """The rows of the first source without a cell in the column of times."""
    blank = rows.blank(name) & (np.arange(len(rows)) < rows.starts[1])
    return Fault(name, "have no time", blank, lambda cell: "a row without a time")


def no_number(rows: LabelledRows, name: str) -> Fault:
    """The rows with a cell that is neither missing nor a finite number."""
    reason, unusable = "have text in a column of numbers", _holds_no_number(rows.codes(name))
    return Fault(
        name, reason, unusable, lambda cell: f"expected a finite number, got {shorten(cell)!r}"
    )


def unknown_label(column: Column, labels: Labels) -> Fault:
    """The rows with a label that no training row has."""
    names = [[cell] for cell in column.values]
    if labels.kind == "multi_label":
        names = [column.labels(code, labels.delimiter) for code in range(len(names))]
    listed = zip(column.values, names, strict=True)
    unknown = {cell: [name for name in each if not labels.knows(name)] for cell, each in listed}
    rows = np.array([*map(bool, unknown.values()), False])[
        column.codes
    ]  # -1, a missing cell, is the last
    return Fault(
        column.name,
        "have an unknown label",
        rows,
        lambda cell: labels.describe_unknown(unknown[cell][0]),
    )


def _refuse(
    rows: LabelledRows,
    faults: Sequence[Fault],
    unusable: np.ndarray,
    find_single_rows: Callable[[np.ndarray], str],
) -> None:
    """Raises DataError for rows that cannot be used; it names every kind of fault, so that one look mends them all."""
    if not unusable.any():
        return
    lost = [int(part.sum()) for part in np.split(unusable, rows.starts[1:-1])]
    counts = zip(lost, np.diff(rows.starts).tolist(), strict=True)
    advice = way_to_leave_out(max(count / size for count, size in counts if size))
    texts = [_describe_fault(rows, fault) for fault in faults if fault.rows.any()]
    if single := find_single_rows(~unusable):
        texts.append(single)
    raise DataError("; ".join(texts) + advice)


def _describe_fault(rows: LabelledRows, fault: Fault) -> str:
    first = int(np.argmax(fault.rows))
    text = fault.describe(
        (rows.table([fault.column], np.array([first]))[fault.column][0] or "").strip()
    )
    where = f"{rows.location(first)}: column {fault.column!r}"
    return f"{where}: {text} ({int(fault.rows.sum()):,} of {len(fault.rows):,} rows)"


def _holds_no_number(column: Column) -> np.ndarray:
    """(N,) True where the cell is neither missing nor a finite number."""
    faulty = [not (is_number(text) and math.isfinite(float(text))) for text in column.values]
    return np.array([*faulty, False])[column.codes]  # -1, a missing cell, is the last


def way_to_leave_out(fraction: float) -> str:
    """The keys with which this fraction of the rows is left out, in a message; "" if that is all of them."""
    needed = math.ceil(100 * fraction - 1e-9) / 100
    limit = f" data.max_left_out={needed:g}" if fraction > MAX_MALFORMED_FRACTION else ""
    return f"; to leave them out: data.on_error=skip{limit}" if needed < 1 else ""


def _describe_part(part: Rows, unusable: np.ndarray, reasons: list[str]) -> LeftOut:
    count, malformed = int(unusable.sum()), [MALFORMED] if part.malformed else []
    first = part.first_left_out(int(np.argmax(unusable)) if count else None)
    return LeftOut(
        part.name, count + part.malformed, len(part) + part.malformed, [*reasons, *malformed], first
    )
