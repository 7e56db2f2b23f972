"""A block of rows, the errors of a source, and the interface of all sources."""

import json
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import xxhash

from mlxlab.data.sources.cells import OnBadCell, strings_of_values, text_of_array, text_of_values
from mlxlab.errors import DataError

OnError = Literal["strict", "skip"]
MAX_LOGGED = 5
MIN_RECORDS = 1000  # before the fraction is checked within an epoch

Start = tuple[int, int]  # byte where a block begins, lines or rows of the unit before it
FIRST: Start = (0, 0)
UNIT_BITS = 40  # bits of a row's id that hold its number in the unit

log = logging.getLogger(__name__)


class Block(NamedTuple):
    """Some rows of a unit, as the format holds them; nothing is converted that nobody asks for."""

    start: Start
    rows: pa.RecordBatch | list[dict[str, object]]
    numbers: np.ndarray  # line (or row) of each row, counted from 1 in its unit

    def __len__(self) -> int:
        return len(self.numbers)

    def texts(self, column: str, on_bad_cell: OnBadCell | None = None) -> pa.Array:
        """The cells of a column as text, null where missing.

        Args:
            on_bad_cell: called with the index of a cell that has no text, and the reason; the cell
                is null then. Without it, ValueError is raised.
        """
        if isinstance(self.rows, list):
            return text_of_values([row.get(column) for row in self.rows], on_bad_cell)
        return text_of_array(self.rows.column(column), on_bad_cell)

    def strings(self, column: str, on_bad_cell: OnBadCell | None = None) -> Sequence[str | None]:
        """`texts` in Python."""
        if isinstance(self.rows, list):
            values: list[Any] = [row.get(column) for row in self.rows]
            try:
                "".join(values).encode()
            except (TypeError, UnicodeEncodeError):  # Not all of them are texts.
                return strings_of_values(values, on_bad_cell)
            return values
        return self.texts(column, on_bad_cell).to_pylist()

    def records(self) -> list[dict[str, object]]:
        """The rows as Python objects, for conversations."""
        if isinstance(self.rows, list):
            return self.rows
        return self.rows.to_pylist()


def block_of(start: Start, rows: pa.RecordBatch | list[dict[str, object]]) -> Block:
    """The block of rows that begins at `start`, where no line is counted but rows.

    Raises ArrowInvalid, a ValueError, for a batch whose content is not what its types say.
    """
    if isinstance(rows, pa.RecordBatch):
        rows.validate(full=True)
    first = start[1] + 1
    return Block(start, rows, np.arange(first, first + len(rows)))


def digest_blocks(blocks: Iterable[Block]) -> str:
    """A hash of the rows of some blocks."""
    digest = xxhash.xxh3_64()
    for block in blocks:
        if isinstance(block.rows, list):
            for row in block.rows:
                digest.update(json.dumps(row, default=repr).encode())
        else:
            digest.update(block.rows.serialize())
    return digest.hexdigest()


def keys_of(rows: Iterable[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


class Source(Protocol):
    """Rows in units that are read forwards, each from any block on."""

    name: str
    fingerprint: str  # covers the content, and all settings on which the rows depend
    units: int

    def columns(self) -> Sequence[str]:
        """The names of all columns; of JSON those of the first block, of plain text none."""

    def blocks(self, unit: int, start: Start, columns: Sequence[str] | None) -> Iterator[Block]:
        """The blocks of a unit from the one that begins at `start`; with these columns at least.

        Raises DataError for malformed rows that the error budget does not skip.
        """

    def location(self, unit: int, number: int) -> str:
        """`file:line`, for messages."""

    def text_bytes(self, column: str) -> int | None:
        """The size of a column's text in UTF-8, estimated; None if it is unknown."""


@dataclass
class ErrorBudget:
    """Counts malformed rows: refuses the first one, or skips up to a fraction of all."""

    on_error: OnError = "strict"
    max_fraction: float = 0.01
    valid: int = 0
    skipped: int = 0
    first: str = ""
    _known: set[Hashable] = field(default_factory=set)

    def skip(self, row: Hashable, describe: Callable[[], str]) -> None:
        """Counts a malformed row once, however often it is read; raises DataError if none may be."""
        if self.on_error == "strict":
            raise DataError(describe())
        if row in self._known:
            return
        self._known.add(row)
        self.skipped += 1
        if self.skipped <= MAX_LOGGED:
            message = describe()
            self.first = self.first or message
            log.warning("skipped %s", message)
        self.check(MIN_RECORDS)

    def skipped_rows(self) -> list[tuple[int, int]]:
        """Unit and number of the rows that were skipped, in their order."""
        return sorted(row for row in self._known if isinstance(row, tuple))

    def check(self, min_records: int = 0) -> None:
        """Raises DataError if too many of at least `min_records` rows were skipped."""
        total = self.valid + self.skipped
        if total < min_records or self.skipped <= self.max_fraction * total:
            return
        found = f"{self.skipped:,} of {total:,} rows are malformed"
        most = f"{100 * self.max_fraction:g} %"
        raise DataError(f"{found}, more than {most}; the first: {self.first}")
