"""Rows that cannot be used, which `data.on_error=skip` leaves out up to the limit on malformed records."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlxlab.data.labelled.labelled_rows import LabelledRows
from mlxlab.data.labelled.labels import Column
from mlxlab.data.labelled.rows import Rows
from mlxlab.data.text.document import MAX_MALFORMED_FRACTION, OnError
from mlxlab.errors import DataError

LEFT_OUT = " and are left out"  # in the line on the rows of a source
NO_LABEL, EMPTY_TEXT, MALFORMED = "have no label", "have an empty text", "are malformed"
LIMIT = f"data.on_error=skip leaves out at most {100 * MAX_MALFORMED_FRACTION:.0f} %"


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

    def check(self) -> None:
        """Raises DataError if these are more than the limit."""
        if self.left_out > MAX_MALFORMED_FRACTION * self.rows:
            raise DataError(f"{self._counted()}; {LIMIT}")

    def _counted(self) -> str:
        share = 100 * self.left_out / self.rows
        percent = f"{share:.0f}" if share >= 10 else f"{share:.2g}"
        return f"{self.source}: {self.left_out} of {self.rows} rows ({percent} %) {' or '.join(self.reasons)}"


def leave_out(
    rows: LabelledRows, labels: Column, required: Sequence[str], on_error: OnError
) -> tuple[np.ndarray, list[LeftOut]]:
    """(N,) True for rows with a label and texts, and those that are left out, by source.

    Args:
        required: the columns that may not be blank.

    Raises:
        DataError: there are such rows and `on_error` is strict, or a source has more than 1 % of them, malformed ones
            included.
    """
    faults = [(labels.name, NO_LABEL, labels.codes < 0), *((name, EMPTY_TEXT, rows.blank(name)) for name in required)]
    if on_error == "strict":
        _refuse(rows, faults)
    usable = ~np.logical_or.reduce([blank for _, _, blank in faults])
    left_out = []
    for part, start, end in zip(rows.parts, rows.starts[:-1].tolist(), rows.starts[1:].tolist(), strict=True):
        unusable = ~usable[start:end]
        if not part.malformed and not unusable.any():
            continue
        reasons = [reason for _, reason, blank in faults if blank[start:end].any()]
        each = _describe_part(part, unusable, list(dict.fromkeys(reasons)))
        each.check()
        left_out.append(each)
    return usable, left_out


def _refuse(rows: LabelledRows, faults: Sequence[tuple[str, str, np.ndarray]]) -> None:
    for name, reason, blank in faults:
        if blank.any():
            kind = "a row without a label" if reason == NO_LABEL else "an empty text"
            where = f"{rows.location(int(np.argmax(blank)))}: column {name!r}"
            raise DataError(f"{where}: {kind} ({int(blank.sum())} in all; {LIMIT})")


def _describe_part(part: Rows, unusable: np.ndarray, reasons: list[str]) -> LeftOut:
    count, malformed = int(unusable.sum()), [MALFORMED] if part.malformed else []
    first = part.location(int(np.argmax(unusable))) if count else ""
    return LeftOut(part.name, count + part.malformed, len(part) + part.malformed, [*reasons, *malformed], first)
