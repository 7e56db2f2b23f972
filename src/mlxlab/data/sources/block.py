"""A block of rows and its cells as text, the errors of a source, and the interface of all sources.

Text is the one form in which all formats agree; types are read from it by `labelled.types`. A number is the
shortest text that gives it back, a boolean `true` or `false`, a time ISO 8601, a list or an object its JSON.
NaN, NaT and null are missing. Every text that UTF-8 can encode is valid, control characters included.
"""

import json
import logging
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import xxhash
from pyarrow import types

from mlxlab.errors import DataError

OnError = Literal["strict", "skip"]
MAX_LOGGED = 5
MIN_RECORDS = 1000  # before the fraction is checked within an epoch

Columns = Sequence[str] | None  # names; None for all
Start = tuple[int, int]  # byte where a block begins, lines or rows of the unit before it
FIRST: Start = (0, 0)
UNIT_BITS = 40  # bits of a row's id that hold its number in the unit

log = logging.getLogger(__name__)


OnBadCell = Callable[[int, ValueError], None]  # (index of the cell, what is wrong with it)


EXACT = (  # Arrow writes these as Python does
    types.is_large_string,
    types.is_string_view,
    types.is_integer,
    types.is_boolean,
    types.is_decimal,
)


def strings_of_values(values: Sequence[object], on_bad_cell: OnBadCell) -> list[str | None]:
    """The text of Python values."""
    cells = []
    for index, value in enumerate(values):
        cell = None
        try:
            cell = cell_text(value)
        except ValueError as error:
            on_bad_cell(index, error)
        cells.append(cell)
    return cells


def text_of_array(array: pa.Array, on_bad_cell: OnBadCell) -> pa.Array:
    """The text of an Arrow array of any type."""
    from pyarrow import compute

    kind = array.type
    if types.is_string(kind):
        return array
    if types.is_dictionary(kind):
        return text_of_array(array.dictionary, on_bad_cell).take(array.indices)
    if any(is_exact(kind) for is_exact in EXACT):
        return array.cast(pa.string())
    if types.is_floating(kind):
        numbers = compute.if_else(compute.is_nan(array), pa.scalar(None, kind), array)
        return numbers.cast(pa.string())
    if types.is_date(kind):
        return array.cast(pa.date32()).cast(pa.string())
    return pa.array(strings_of_values(array.to_pylist(), on_bad_cell), pa.string())


def cell_text(value: object) -> str | None:
    """The text of a value; raises ValueError for one that has none."""
    match value:
        case None:
            return None
        case str():
            return _encodable(value)
        case bool() | np.bool_():
            return "true" if value else "false"
        case int() | np.integer() | Decimal():
            return str(value)
        case float() | np.floating():
            return None if math.isnan(value) else str(value)
        case datetime() | date() | time():
            is_missing = value != value  # NaT differs from itself.
            return None if is_missing else value.isoformat()
        case bytes():
            return value.decode()
        case list() | dict() | np.ndarray():
            return _encodable(_json_text(value))
    if type(value).__name__ == "NAType":  # The type is in pandas, which need not be imported.
        return None
    raise ValueError(f"a value of type {type(value).__name__}")


def _json_text(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=_json_value)
    except RecursionError:
        raise ValueError("a list that is nested too deep") from None


def _json_value(value: object) -> object:
    """A value that JSON does not know, as one that it knows."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)


def _encodable(text: str) -> str:
    """Text without lone surrogates, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = f"\\u{ord(text[error.start]):04x}"
        raise ValueError(f"a lone surrogate ({code}) is not a character") from None
    return text


Records = list[dict[str, object]]


class Block(NamedTuple):
    """Some rows of a unit, as the format holds them; nothing is converted that nobody asks for."""

    start: Start
    rows: pa.RecordBatch | Records
    numbers: np.ndarray  # line (or row) of each row, counted from 1 in its unit

    def __len__(self) -> int:
        return len(self.numbers)

    def texts(self, column: str, on_bad_cell: OnBadCell) -> pa.Array:
        """The cells of a column as text, null where missing.

        Args:
            on_bad_cell: called for a cell that has no text, which is null then.
        """
        if isinstance(self.rows, list):
            return pa.array(self.strings(column, on_bad_cell), pa.string())
        return text_of_array(self.rows.column(column), on_bad_cell)

    def strings(self, column: str, on_bad_cell: OnBadCell) -> Sequence[str | None]:
        """`texts` as Python values, without an Arrow array, for which Arrow imports pandas."""
        if isinstance(self.rows, list):
            values: list[Any] = [row.get(column) for row in self.rows]
            try:
                "".join(values).encode()
            except (TypeError, UnicodeEncodeError):  # Not all of them are texts.
                return strings_of_values(values, on_bad_cell)
            return values
        return self.texts(column, on_bad_cell).to_pylist()

    def records(self) -> Records:
        """The rows as Python objects, for conversations."""
        if isinstance(self.rows, list):
            return self.rows
        return self.rows.to_pylist()


def block_of(start: Start, rows: pa.RecordBatch | Records) -> Block:
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

    def blocks(self, unit: int, start: Start, columns: Columns) -> Iterator[Block]:
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
        most = f"{100 * self.max_fraction:g} %"
        malformed = f"{self.skipped:,} of {total:,} rows are malformed, more than {most}"
        raise DataError(f"{malformed}; the first: {self.first}")
