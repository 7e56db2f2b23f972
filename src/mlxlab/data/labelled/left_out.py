"""Rows that cannot be used, which `data.on_error=skip` leaves out up to `data.max_left_out` of a source."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from mlxlab.data.labelled.rows import Rows
from mlxlab.data.labelled.types import TypedColumn, Types, distinct_texts
from mlxlab.data.sources.block import OnError
from mlxlab.errors import DataError
from mlxlab.terminal.wording import counted, percent

LEFT_OUT = " left out: "  # marks the line on the rows of a source
USABLE = -1


@dataclass(eq=False)
class Faults:
    """The rows of some sources that cannot be used, each by the first fault that is found.

    Args:
        max_fraction: of the rows of a source, malformed ones included, that may be left out.
        messages: the column of each fault, and what is wrong with its first row.
        num_left_out: rows with a fault, and malformed ones, by the last check.
    """

    rows: Rows
    on_error: OnError
    max_fraction: float
    messages: list[str] = field(default_factory=list)
    num_left_out: int = 0

    def __post_init__(self) -> None:
        self.numbers = np.full(len(self.rows), USABLE)  # the fault of each row, by its number

    @property
    def usable(self) -> np.ndarray:
        """(N,) True for rows without a fault."""
        return self.numbers == USABLE

    def add(self, column: str, message: str, rows: np.ndarray) -> None:
        """Counts these rows, (N,) True where, as unusable."""
        self.numbers[rows & self.usable] = len(self.messages)
        self.messages.append(f"column {column!r}: {message}")

    def add_missing(
        self, labels: TypedColumn, required: Sequence[str], time_column: str | None = None
    ) -> None:
        """Counts the rows without a label, without one of these texts, or of the first source without a time."""
        self.add(labels.name, "a row without a label", labels.codes < 0)
        for name in required:
            self.add(name, "an empty text", self._is_blank(name))
        if time_column is not None:
            is_first = np.arange(len(self.rows)) < self.rows.starts[1]
            self.add(time_column, "a row without a time", self._is_blank(time_column) & is_first)

    def _is_blank(self, name: str) -> np.ndarray:
        """(N,) True where the cell is missing or only white space."""
        return distinct_texts(self.rows.column(name))[1] < 0

    def add_cells(self, types: Types) -> None:
        """Counts the rows with a cell that is not of the type of its column."""
        for name, column_type in types.items():
            if column_type.kind not in ("text", "category"):
                texts, codes = distinct_texts(self.rows.column(name))
                self.add_unreadable(TypedColumn(name, column_type, texts, codes), column_type.read)

    def add_unreadable(self, column: TypedColumn, read: Callable[[str], object]) -> None:
        """Counts the rows for whose value `read` raises ValueError."""
        messages = [""] * (len(column.values) + 1)  # The last one is that of a missing cell.
        for number, value in enumerate(column.values):
            try:
                read(value)
            except ValueError as error:
                messages[number] = str(error)
        is_faulty = np.array(messages, bool)[column.codes] & self.usable
        self.add(column.name, messages[column.codes[np.argmax(is_faulty)]], is_faulty)

    def check(self) -> list[str]:
        """A line for each source of which rows are left out.

        Raises:
            DataError: there are such rows and `on_error` is strict, or a source has more than `max_fraction` of them.
        """
        lines = []
        self.num_left_out = 0
        for part, (start, end) in zip(self.rows.parts, pairwise(self.rows.starts), strict=True):
            count = part.num_malformed
            faults = []
            for number, message in enumerate(self.messages):
                rows = np.flatnonzero(self.numbers[start:end] == number)
                if len(rows):
                    where = self.rows.location(start + rows[0])
                    faults.append(f"{where}: {message} ({counted(len(rows), 'row')})")
                    count += len(rows)
            if part.num_malformed:
                malformed = counted(part.num_malformed, "malformed row")
                faults.append(f"{part.first_malformed} ({malformed})")
            if not count:
                continue
            share = count / int(end - start + part.num_malformed)
            left_out = f"{part.source.name}: {counted(count, 'row')} ({percent(share)})"
            if self.on_error == "strict" or share > self.max_fraction:
                raise DataError(f"{left_out} cannot be used: {'; '.join(faults)}")
            lines.append(f"{left_out}{LEFT_OUT}{'; '.join(faults)}")
            self.num_left_out += count
        return lines
