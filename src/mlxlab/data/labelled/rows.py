"""Rows of some sources as text: columns that are memory-mapped from the cache."""

import json
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from mlxlab.constraints import MaxLen, MinLen
from mlxlab.data.arrow_cache import cached_table
from mlxlab.data.cache import content_key
from mlxlab.data.dataset import Table
from mlxlab.data.sources.block import FIRST, UNIT_BITS, Block, ErrorBudget, OnError, Source
from mlxlab.data.sources.csv import is_unnamed
from mlxlab.data.sources.messages import shorten
from mlxlab.data.sources.open import Reading, open_source
from mlxlab.data.sources.open import Rows as RowsOfAnyKind
from mlxlab.errors import DataError
from mlxlab.files.untrusted import parse_json
from mlxlab.wording import counted

FORMAT = 4
PLACE = ""  # the name of the first column, which holds unit << UNIT_BITS | number of each row
MALFORMED = b"malformed"  # the metadata that hold `Malformed`
NO_PLACE = -1
CHECKED_ROWS = 2
BLOCK = 2**14  # rows whose cells are Python strings at a time
MAX_LISTED = 12  # columns in the log
INDEX = "__index_level_"  # how the columns begin in which pandas stores an index


@dataclass(frozen=True)
class RowReading:
    """Options for reading rows.

    Args:
        delimiter: of .csv files; null takes the most frequent of comma, semicolon, tab and bar in the header. That of
            .tsv files is a tab.
        quoting: of CSV: false reads quotes as text; null encloses texts in quotes, and refuses those that span several
            lines of a .tsv.
        encoding: of text files; null is UTF-8, with or without byte order mark, or UTF-16 with one. Others, such as
            latin-1 and cp1252, must be named.
        missing: cells that count as missing besides empty ones, such as [NA, "?"].
        config: configuration name of a Hugging Face data set.
        split: of a Hugging Face data set; null is train.
        revision: branch, tag or commit of a Hugging Face data set.
    """

    delimiter: Annotated[str, MinLen(1), MaxLen(1)] | None = None
    quoting: bool | None = None
    encoding: str | None = None
    missing: Sequence[str] = ()
    config: str | None = None
    split: str | None = None
    revision: str | None = None

    def open(self, source: object, errors: ErrorBudget) -> Source:
        """Opens a source by its name, or rows in memory; raises as `open_source`."""
        reading = Reading(
            self.delimiter,
            self.quoting,
            self.encoding,
            config=self.config,
            split=self.split,
            revision=self.revision,
        )
        return open_source(rows_of(source), reading, errors)


class TextBlock(NamedTuple):
    """Some rows of a source as text."""

    columns: dict[str, pa.Array]
    places: np.ndarray  # (N,) int64: unit << UNIT_BITS | number
    numbers: np.ndarray  # (N,) from 1, of all rows of the source, malformed ones included


class Malformed(NamedTuple):
    """Rows of a source that were left out: how many, what is wrong with the first one, and its place."""

    num_rows: int
    first: str
    place: int


class Part(NamedTuple):
    """The rows of one source."""

    source: Source
    table: pa.Table  # PLACE, then columns of text
    fingerprint: str
    malformed: Malformed

    def first_malformed(self) -> str:
        """The message about the first row that was left out. Its file may have moved since it was read."""
        place = self.malformed.place
        location = "" if place == NO_PLACE else location_of(self.source, place)
        return f"{location}{self.malformed.first}"

    def first_left_out(self, row: int | None) -> str:
        """The location of this row, or of the first malformed one if that comes before it; "" without either."""
        place = self.malformed.place
        if row is not None:
            own = self.table.column(0)[row].as_py()
            place = own if place == NO_PLACE else min(own, place)
        return "" if place == NO_PLACE else location_of(self.source, place)

    def describe(self) -> str:
        """A line for the log."""
        names = self.table.column_names[1:]
        listed = ", ".join(names[:MAX_LISTED])
        if len(names) > MAX_LISTED:
            listed += ", ..."
        line = f"{self.source.name}: {len(self.table):,} rows, columns {listed}"
        if self.malformed.num_rows:
            line += f"; skipped {counted(self.malformed.num_rows, 'malformed row')}"
        return line


class Rows:
    """The rows of several sources, numbered on from one source to the next, as columns of text."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.name = parts[0].source.name
        self.fingerprint = "/".join(part.fingerprint for part in parts)
        self.columns = parts[0].table.column_names[1:]
        self.starts = np.cumsum([0, *(len(part.table) for part in parts)])
        places = self.column(PLACE)
        self._chunk_starts = np.cumsum([0, *map(len, places.chunks)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def column(self, name: str) -> pa.ChunkedArray:
        """The text of a column, null where it is missing."""
        chunks = [chunk for part in self.parts for chunk in part.table.column(name).chunks]
        return pa.chunked_array(chunks)

    def arrays(self, columns: Sequence[str], rows: np.ndarray) -> dict[str, pa.Array]:
        """The cells of these rows, of which no others are read."""
        numbers = np.searchsorted(self._chunk_starts, rows, side="right") - 1
        order = np.argsort(numbers, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1)
        back = pa.array(np.argsort(order))
        arrays: dict[str, pa.Array] = {}
        for name in columns:
            chunks = self.column(name).chunks
            pieces = [pa.array([], pa.string())]
            for group in groups:
                if len(group):
                    number = numbers[group[0]]
                    local = rows[group] - self._chunk_starts[number]
                    pieces.append(chunks[number].take(pa.array(local)))
            arrays[name] = pa.concat_arrays(pieces).take(back)
        return arrays

    def table(self, columns: Sequence[str], rows: np.ndarray) -> Table:
        """The cells of these rows as Python texts."""
        return {name: cells.to_pylist() for name, cells in self.arrays(columns, rows).items()}

    def blocks(self, columns: Sequence[str], rows: np.ndarray) -> Iterator[Table]:
        """The cells of these rows, a few thousand at a time."""
        for start in range(0, len(rows), BLOCK):
            yield self.table(columns, rows[start : start + BLOCK])

    def location(self, row: int) -> str:
        """Where a row stands, for messages: `reviews.csv:17`."""
        part = int(np.searchsorted(self.starts, row, side="right")) - 1
        local = row - int(self.starts[part])
        place = self.parts[part].table.column(0)[local].as_py()
        return location_of(self.parts[part].source, place)

    def blank(self, name: str) -> np.ndarray:
        """(N,) True where the cell is missing or only white space."""
        trimmed = pc.utf8_trim_whitespace(self.column(name))
        return np.asarray(pc.fill_null(pc.equal(trimmed, ""), True).to_numpy())

    def mean_bytes(self, columns: Sequence[str]) -> float:
        """Mean size of a row's cells in UTF-8."""
        sizes = [pc.sum(pc.binary_length(self.column(name))).as_py() or 0 for name in columns]
        return sum(sizes) / max(len(self), 1)

    def text_hashes(self, columns: Sequence[str]) -> np.ndarray:
        """(N,) uint64 of the cells of each row."""
        hashes = [hash_rows(table) for table in self.blocks(columns, np.arange(len(self)))]
        return np.concatenate([np.zeros(0, np.uint64), *hashes])


def hash_rows(table: Table) -> np.ndarray:
    """(N,) uint64 of the cells of each row."""
    rows = ("\x1f".join(cell or "" for cell in row) for row in zip(*table.values(), strict=True))
    return np.array([xxhash.xxh3_64_intdigest(row.encode()) for row in rows], np.uint64)


def location_of(source: Source, place: int) -> str:
    return source.location(place >> UNIT_BITS, place % (1 << UNIT_BITS))


def open_rows(
    source: object,
    reading: RowReading,
    cache: Path,
    on_error: OnError = "strict",
    columns: Sequence[str] | None = None,
    max_left_out: float = 0.01,
) -> Part:
    """The rows of a source; read once, then mapped from the cache.

    Args:
        cache: folder for the rows as they were read.
        on_error: strict refuses malformed rows, skip leaves them out.
        columns: those that are needed; None is all that have a name and hold no objects.
        max_left_out: the fraction of the rows that skip may leave out. It is not checked for rows in the cache.

    Raises:
        InputNotFoundError: no such file or folder.
        DataError: the content does not match the format, a column does not exist, or there is no row.
        ConfigError: an option does not go with this source.
        ServiceUnavailableError: the hub, or a package that reads the format, is unavailable.
    """
    errors = ErrorBudget(on_error, max_left_out, "data.max_left_out")
    opened = reading.open(source, errors)
    if columns is None:
        columns = plain_columns(opened)
    names = list(dict.fromkeys(columns))
    key = content_key(
        format=FORMAT,
        rows=opened.fingerprint,
        missing=sorted(reading.missing),
        columns=names,
        errors=on_error,
    )

    def batches() -> Iterator[pa.RecordBatch]:
        schema = pa.schema([(PLACE, pa.int64()), *((name, pa.string()) for name in names)])
        num_rows = 0
        for block in text_blocks(opened, names, reading.missing, errors):
            arrays = [pa.array(block.places, pa.int64()), *block.columns.values()]
            num_rows += len(block.places)
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        if not num_rows:
            raise DataError(f"{opened.name}: no rows")
        place = NO_PLACE
        first = errors.first
        for unit, number in errors.skipped_rows()[:1]:
            place = unit << UNIT_BITS | number
            first = first.removeprefix(opened.location(unit, number))
        malformed = json.dumps([errors.skipped, first, place])
        yield pa.RecordBatch.from_pylist([], schema.with_metadata({MALFORMED: malformed}))

    path = cache / f"rows-{key}.arrow"
    table, _ = cached_table(path, batches, _check_batch, _read_malformed)
    return Part(opened, table, key, _read_malformed(table))


def rows_of(source: Any) -> RowsOfAnyKind:
    """A name, a DataFrame, columns or a Hugging Face data set as they are; other rows, such as those of torch, as dicts.

    Raises DataError unless the first rows are dicts.
    """
    is_frame = type(source).__module__.partition(".")[0] == "pandas"
    if isinstance(source, str | Mapping) or is_frame or hasattr(source, "select_columns"):
        return source
    name = type(source).__name__
    if not hasattr(source, "__getitem__") and not hasattr(source, "__iter__"):
        raise DataError(f"data.source: expected rows, got {name}")
    rows = list(map(source.__getitem__, range(len(source)))) if hasattr(source, "__len__") else []
    rows = rows or list(source)
    for number, row in enumerate(rows[:CHECKED_ROWS], 1):
        if not isinstance(row, Mapping):
            got = f"{type(row).__name__} {shorten(row)}"
            raise DataError(f"{name}: row {number}: expected a dict of columns, got {got}")
    return rows


def text_blocks(
    source: Source, columns: Sequence[str], missing: Sequence[str], errors: ErrorBudget
) -> Iterator[TextBlock]:
    """The rows of a source, a block at a time, without malformed ones.

    Args:
        missing: cells that count as missing besides empty ones.
    """
    absent = pa.array(["", *missing], pa.string())
    num_rows = 0
    for unit in range(source.units):
        for block in source.blocks(unit, FIRST, columns):
            arrays = _text_arrays(source, unit, block, columns, errors)
            lines = block.numbers
            skipped = errors.skipped_rows()
            bad = np.array([line for each, line in skipped if each == unit], np.int64)
            is_good = np.isin(lines, bad, invert=True)
            if not is_good.all():
                lines = lines[is_good]
                arrays = {name: cells.filter(pa.array(is_good)) for name, cells in arrays.items()}
            num_skipped = bisect_left(skipped, (unit, 0)) + np.searchsorted(bad, lines)
            numbers = num_rows + np.arange(1, len(lines) + 1) + num_skipped
            num_rows += len(lines)
            errors.valid += len(lines)
            for name, cells in arrays.items():
                arrays[name] = pc.if_else(pc.is_in(cells, absent), None, cells)
            yield TextBlock(arrays, lines + (unit << UNIT_BITS), numbers)
    errors.check()


def _text_arrays(
    source: Source, unit: int, block: Block, columns: Sequence[str], errors: ErrorBudget
) -> dict[str, pa.Array]:
    """The columns of a block; a cell that has no text makes its row a malformed one."""
    arrays: dict[str, pa.Array] = {}
    for name in columns:

        def skip(index: int, error: ValueError, name: str = name) -> None:
            number = int(block.numbers[index])
            where = f"{source.location(unit, number)}: column {name!r}"
            errors.skip((unit, number), lambda: f"{where}: {error}")

        arrays[name] = block.texts(name, skip)
    return arrays


def plain_columns(source: Source) -> list[str]:
    """The columns that have a name and hold no objects, by the first rows."""
    names = [name for name in source.columns() if name.strip() and not is_unnamed(name)]
    names = [name for name in names if not name.startswith(INDEX)]
    block = next(source.blocks(0, FIRST, None), None)
    if block is None:
        return names
    if isinstance(block.rows, list):
        objects = {
            name for row in block.rows for name, cell in row.items() if isinstance(cell, dict)
        }
        return [name for name in names if name not in objects]
    schema = block.rows.schema
    return [name for name in names if not _holds_objects(schema.field(name).type)]


def _holds_objects(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) or pa.types.is_map(kind) or pa.types.is_union(kind)


def _check_batch(batch: pa.RecordBatch) -> None:
    types = [pa.int64(), *[pa.string()] * (batch.num_columns - 1)]
    if batch.schema.types != types or batch.schema.names[0] != PLACE:
        raise DataError("other columns than those of rows")


def _read_malformed(table: pa.Table) -> Malformed:
    """The malformed rows of which a table says that they were left out; DataError if it says nothing."""
    try:
        text = table.schema.metadata[MALFORMED].decode()
    except (KeyError, TypeError, ValueError):
        raise DataError("no count of malformed rows") from None
    return Malformed(*parse_json(text, tuple[int, str, int], "malformed rows"))
