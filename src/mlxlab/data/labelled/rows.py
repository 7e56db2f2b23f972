"""Rows of some sources as text: columns that are memory-mapped from the cache."""

import json
import mmap
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from mlxlab.data.cache import HEADER_BYTES, cached, content_key
from mlxlab.data.dataset import Table
from mlxlab.data.sources.block import FIRST, UNIT_BITS, Block, ErrorBudget, OnError, Source
from mlxlab.data.sources.open import Reading, open_source
from mlxlab.data.sources.parsers import UNNAMED
from mlxlab.errors import DataError
from mlxlab.files.untrusted import parse_json

FORMAT = 4
PLACE = ""  # the name of the first column, which holds unit << UNIT_BITS | number of each row
MALFORMED = b"malformed"  # metadata: how many rows were left out, and the first of them
BLOCK = 2**14  # rows whose cells are Python strings at a time
INDEX = "__index_level_"  # how the columns begin in which pandas stores an index


class TextBlock(NamedTuple):
    """Some rows of a source as text."""

    columns: pa.RecordBatch
    places: np.ndarray  # (N,) int64: unit << UNIT_BITS | number
    numbers: np.ndarray  # (N,) from 1, of all rows of the source, malformed ones included


class Part(NamedTuple):
    """The rows of one source."""

    source: Source
    table: pa.Table  # PLACE, then columns of text
    fingerprint: str
    num_malformed: int  # rows that were left out
    first_malformed: str  # where the first of them stands, and what is wrong with it


class Rows:
    """The rows of several sources, numbered on from one source to the next, as columns of text."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = parts
        self.name = parts[0].source.name
        self.fingerprint = "/".join(part.fingerprint for part in parts)
        self.starts = np.cumsum([0, *(len(part.table) for part in parts)])
        self._table = pa.concat_tables([part.table for part in parts])
        self._batches = self._table.to_batches()
        self._batch_starts = np.cumsum([0, *map(len, self._batches)])
        self.columns = self._table.column_names[1:]

    def __len__(self) -> int:
        return len(self._table)

    def column(self, name: str) -> pa.ChunkedArray:
        """The text of a column, null where it is missing."""
        return self._table.column(name)

    def table(self, columns: Sequence[str], rows: np.ndarray) -> Table:
        """The cells of these rows as Python texts; no others are read."""
        numbers = np.searchsorted(self._batch_starts, rows, side="right") - 1
        order = np.argsort(numbers, kind="stable")
        taken = []
        for number in np.unique(numbers):
            local = rows[numbers == number] - self._batch_starts[number]
            taken.append(self._batches[number].select(columns).take(pa.array(local)))
        schema = self._table.select(columns).schema
        cells = pa.Table.from_batches(taken, schema).take(pa.array(np.argsort(order)))
        return cells.to_pydict()

    def blocks(self, columns: Sequence[str], rows: np.ndarray) -> Iterator[Table]:
        """The cells of these rows, a few thousand at a time."""
        for start in range(0, len(rows), BLOCK):
            yield self.table(columns, rows[start : start + BLOCK])

    def location(self, row: int) -> str:
        """Where a row stands, for messages: `reviews.csv:17`."""
        part = self.parts[int(np.searchsorted(self.starts, row, side="right")) - 1]
        return location_of(part.source, self.column(PLACE)[int(row)].as_py())

    def mean_bytes(self, columns: Sequence[str]) -> float:
        """Mean size of a row's cells in UTF-8."""
        sizes = [pc.sum(pc.binary_length(self.column(name))).as_py() or 0 for name in columns]
        return sum(sizes) / max(len(self), 1)


def hash_rows(table: Table) -> np.ndarray:
    """(N,) uint64 of the cells of each row."""
    rows = ("\x1f".join(cell or "" for cell in row) for row in zip(*table.values(), strict=True))
    return np.array([xxhash.xxh3_64_intdigest(row.encode()) for row in rows], np.uint64)


def location_of(source: Source, place: int) -> str:
    return source.location(place >> UNIT_BITS, place % (1 << UNIT_BITS))


def open_rows(
    source: object,
    reading: Reading,
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
    errors = ErrorBudget(on_error, max_left_out)
    opened = open_source(source, reading, errors)
    names = list(dict.fromkeys(plain_columns(opened) if columns is None else columns))
    fingerprint = content_key(
        format=FORMAT,
        rows=opened.fingerprint,
        missing=sorted(reading.missing),
        columns=names,
        errors=on_error,
    )
    schema = pa.schema([(PLACE, pa.int64()), *((name, pa.string()) for name in names)])

    def write(file: BinaryIO) -> None:
        num_rows = 0
        with pa.ipc.new_file(file, schema) as writer:
            for block in text_blocks(opened, names, reading.missing, errors):
                num_rows += len(block.places)
                arrays = [pa.array(block.places), *block.columns.columns]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            if not num_rows:
                raise DataError(f"{opened.name}: no rows")
            malformed = {MALFORMED: json.dumps([errors.skipped, errors.first])}
            writer.write_batch(pa.RecordBatch.from_pylist([], schema), custom_metadata=malformed)

    # A message about a malformed row names its file: another name is another cache file.
    key = content_key(rows=fingerprint, name=opened.name)
    read = partial(_read_cached, schema=schema)
    (table, malformed), _ = cached(cache / f"rows-{key}.arrow", write, read)
    return Part(opened, table, fingerprint, *malformed)


def _read_cached(data: mmap.mmap, schema: pa.Schema) -> tuple[pa.Table, tuple[int, str]]:
    """Mapped rows, how many malformed ones were left out, and the first of these; DataError for other content."""
    batches = []
    metadata = {}
    try:
        reader = pa.ipc.open_file(pa.py_buffer(data)[HEADER_BYTES:])
        for number in range(reader.num_record_batches):
            batch, metadata = reader.get_batch_with_custom_metadata(number)
            batch.validate(full=True)
            batches.append(batch)
            data.madvise(mmap.MADV_DONTNEED)
    except (pa.ArrowException, OSError) as error:
        raise DataError(str(error).splitlines()[0]) from None
    if reader.schema != schema:
        raise DataError("other columns than those of rows")
    malformed = (metadata or {}).get(MALFORMED, b"").decode(errors="replace")
    found = parse_json(malformed, tuple[int, str], "malformed rows")
    return pa.Table.from_batches(batches, schema), found


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
            cells, is_good = _read_cells(source, unit, block, columns, errors)
            cells = [pc.if_else(pc.is_in(array, absent), None, array) for array in cells]
            batch = pa.RecordBatch.from_arrays(cells, list(columns)).filter(pa.array(is_good))
            places = block.numbers[is_good] + (unit << UNIT_BITS)
            skipped = [each << UNIT_BITS | number for each, number in errors.skipped_rows()]
            num_before = num_rows + np.searchsorted(skipped, places)
            num_rows += len(places)
            errors.valid += len(places)
            yield TextBlock(batch, places, num_before + np.arange(1, len(places) + 1))
    errors.check()


def _read_cells(
    source: Source, unit: int, block: Block, columns: Sequence[str], errors: ErrorBudget
) -> tuple[list[pa.Array], np.ndarray]:
    """The columns of a block, and True for its good rows: a cell that has no text makes its row a malformed one."""
    is_good = np.ones(len(block), bool)

    def skip(name: str, index: int, error: ValueError) -> None:
        is_good[index] = False
        number = int(block.numbers[index])
        where = f"{source.location(unit, number)}: column {name!r}"
        errors.skip((unit, number), lambda: f"{where}: {error}")

    return [block.texts(name, partial(skip, name)) for name in columns], is_good


def plain_columns(source: Source) -> list[str]:
    """The columns that have a name and hold no objects, by the first rows."""
    objects: set[str] = set()
    block = next(source.blocks(0, FIRST, None), None)
    for row in block.records() if block is not None else ():
        objects.update(name for name, cell in row.items() if _is_object(cell))
    names = [name for name in source.columns() if name.strip() and name not in objects]
    return [name for name in names if not name.startswith((INDEX, UNNAMED))]


def _is_object(cell: object) -> bool:
    """Whether a cell is an object, a map (a list of pairs) or a list of objects."""
    first = cell[0] if isinstance(cell, list) and cell else cell
    return isinstance(first, dict | tuple)
