"""Parquet and Arrow files, and rows in memory, as sources."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import xxhash

from mlxlab.data.sources.block import Block, ErrorBudget, Start, require_rows, skip_empty_files
from mlxlab.data.sources.files import Files, refuse_bomb
from mlxlab.data.sources.messages import first_line, require_columns
from mlxlab.errors import DataError

if TYPE_CHECKING:
    import io

    import pandas as pd
    from pyarrow import parquet

MAX_ROWS = 2**13
BATCH_BYTES = 2**20
DENSE_RATIO = 10  # of decoded to stored bytes, above that of most texts
ROW_BYTES = 64  # of memory for a row whatever its cells: limits the rows of a few stored bytes
MAX_PARTS = 2**20  # of an Arrow batch, whose number and part are in one number of a position
ARROW_MAGIC = b"ARROW1"

Table: TypeAlias = "pd.DataFrame | Sequence[Mapping[str, object]] | Mapping[str, Sequence[object]]"


class RowGroup(NamedTuple):
    """A unit of a Parquet file."""

    file: int
    number: int
    rows_before: int
    rows: int


class ParquetFiles:
    """A `Source` whose units are row groups. Seeking decodes those columns of one that are read."""

    def __init__(self, files: Files, errors: ErrorBudget) -> None:
        skip_empty_files(files, errors)
        self.files = files
        self.errors = errors
        self.name = files.name
        self.fingerprint = f"{files.fingerprint()}:parquet"
        self.groups = list(self._groups())
        self.units = len(self.groups)
        require_rows(self)

    def columns(self) -> Sequence[str]:
        return self._metadata(self.files.nonempty()[0]).schema.to_arrow_schema().names

    def blocks(self, unit: int, start: Start, columns: Sequence[str] | None) -> Iterator[Block]:
        group = self.groups[unit]
        row = 0
        with self.files.open(group.file) as file:
            try:
                for batch in self._batches(file, group, columns):
                    if row >= start[1]:
                        self.errors.valid += len(batch)
                        yield block_of((0, row), batch)
                    row += len(batch)
            except (pa.ArrowException, OSError, ValueError) as error:
                where = self.location(unit, row + 1)
                raise DataError(f"{where}: {first_line(error)}") from None
        self.files.check(group.file)

    def location(self, unit: int, number: int) -> str:
        group = self.groups[unit]
        return f"{self.files.path(group.file)}:row {group.rows_before + number}"

    def text_bytes(self, column: str) -> int | None:
        total = 0
        for index in {group.file for group in self.groups}:
            meta = self._metadata(index)
            for number in range(meta.num_row_groups):
                total += _sizes(meta.row_group(number), [column]).decoded
        return total

    def _groups(self) -> Iterator[RowGroup]:
        for index in self.files.nonempty():
            rows_before = 0
            meta = self._metadata(index)
            for number in range(meta.num_row_groups):
                rows = meta.row_group(number).num_rows
                if rows:
                    yield RowGroup(index, number, rows_before, rows)
                rows_before += rows

    def _metadata(self, index: int) -> "parquet.FileMetaData":
        from pyarrow import parquet

        with self.files.open(index) as file:
            try:
                return parquet.ParquetFile(file).metadata
            except (pa.ArrowException, OSError, ValueError) as error:
                path = self.files.path(index)
                raise DataError(f"{path}:1: not parquet: {first_line(error)}") from None

    def _batches(
        self, file: "io.BufferedReader", group: RowGroup, columns: Sequence[str] | None
    ) -> Iterator[pa.RecordBatch]:
        """Batches of about BATCH_BYTES, in which repeated texts are kept once where that saves much."""
        from pyarrow import parquet

        meta = parquet.ParquetFile(file).metadata
        names = meta.schema.to_arrow_schema().names
        require_columns(columns or (), names, self.files.path(group.file))
        chosen = list(names if columns is None else columns)
        sizes = _sizes(meta.row_group(group.number), chosen)
        stored = min(sizes.stored, self.files.sizes[group.file])
        refuse_bomb(max(sizes.decoded, group.rows * ROW_BYTES), stored)
        is_dense = sizes.decoded > DENSE_RATIO * stored
        reader = parquet.ParquetFile(
            file,
            read_dictionary=chosen if is_dense else None,
            pre_buffer=False,
            buffer_size=2**18,
        )
        row_bytes = max(sizes.decoded // group.rows, 1)
        max_rows = min(max(BATCH_BYTES // row_bytes, 1), MAX_ROWS)
        decoded = 0
        groups = [group.number]
        for batch in reader.iter_batches(max_rows, groups, chosen, use_threads=False):
            size = _decoded_bytes(batch) + ROW_BYTES * len(batch)
            decoded += size
            refuse_bomb(decoded, stored)
            rows = max(len(batch) * BATCH_BYTES // size, 1)
            for first in range(0, len(batch), rows):
                yield batch.slice(first, rows)


class Sizes(NamedTuple):
    """Bytes of some columns of a row group."""

    decoded: int
    stored: int


def _sizes(group: "parquet.RowGroupMetaData", columns: Sequence[str]) -> Sizes:
    chosen = set(columns)
    chunks = [group.column(index) for index in range(group.num_columns)]
    chunks = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in chosen]
    return Sizes(
        sum(chunk.total_uncompressed_size for chunk in chunks),
        sum(chunk.total_compressed_size for chunk in chunks),
    )


def _decoded_bytes(batch: pa.RecordBatch) -> int:
    """Bytes of a batch when its dictionaries are decoded."""
    from pyarrow import compute

    size = 0
    for column in batch.columns:
        if not pa.types.is_dictionary(column.type):
            size += column.nbytes
            continue
        lengths = compute.binary_length(column.dictionary.cast(pa.large_binary()))
        size += compute.sum(lengths.take(column.indices)).as_py() or 0
    return size


class ArrowFiles:
    """A `Source` of Arrow IPC files and streams, memory-mapped: any block is reached at once."""

    def __init__(self, files: Files, errors: ErrorBudget) -> None:
        skip_empty_files(files, errors)
        self.files = files
        self.name = files.name
        self.indices = files.nonempty()
        self.units = len(self.indices)
        self.fingerprint = f"{files.fingerprint()}:arrow"

    def columns(self) -> Sequence[str]:
        return self._open(0).schema.names

    def blocks(self, unit: int, start: Start, columns: Sequence[str] | None) -> Iterator[Block]:
        reader = self._open(unit)
        require_columns(columns or (), reader.schema.names, self.files.path(self.indices[unit]))
        first, part = divmod(start[0], MAX_PARTS)
        row = start[1] - part * MAX_ROWS
        try:
            for number, batch in enumerate(_batches_from(reader, first), first):
                batch.validate(full=True)
                yield from _split(number, part, row, batch)
                row += len(batch)
                part = 0
        except (pa.ArrowException, OSError) as error:
            where = self.location(unit, row + 1)
            raise DataError(f"{where}: {first_line(error)}") from None
        self.files.check(self.indices[unit])

    def location(self, unit: int, number: int) -> str:
        return f"{self.files.path(self.indices[unit])}:row {number}"

    def text_bytes(self, column: str) -> int | None:
        total = 0
        for unit in range(self.units):
            for batch in _batches_from(self._open(unit), 0):
                if column in batch.schema.names:
                    total += batch.column(column).nbytes
        return total

    def _open(self, unit: int) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
        path = self.files.path(self.indices[unit])
        with self.files.open(self.indices[unit]) as file:
            is_file = file.read(len(ARROW_MAGIC)) == ARROW_MAGIC
        try:
            mapped = pa.memory_map(path)
            return pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}:1: not Arrow IPC: {first_line(error)}") from None


def _batches_from(
    reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader, first: int
) -> Iterator[pa.RecordBatch]:
    if isinstance(reader, pa.RecordBatchFileReader):
        return map(reader.get_batch, range(first, reader.num_record_batches))
    return islice(reader, first, None)


class TableRows:
    """A `Source` of rows in memory: a DataFrame, a list of dicts, or a mapping of columns."""

    units = 1

    def __init__(self, table: Table, name: str, fingerprint: str | None = None) -> None:
        import pandas as pd

        if isinstance(table, Mapping):
            table = _rows_of_columns(table)
        self.table: Any = table
        self.name = name
        self.is_frame = isinstance(table, pd.DataFrame)
        if not len(table):
            raise DataError(f"{name}: contains no rows")
        self.fingerprint = fingerprint or f"{name}:{self._digest()}"

    def columns(self) -> Sequence[str]:
        if self.is_frame:
            return [str(name) for name in self.table.columns]
        return list(dict.fromkeys(key for row in self.table[:MAX_ROWS] for key in row))

    def blocks(self, unit: int, start: Start, columns: Sequence[str] | None) -> Iterator[Block]:
        require_columns(columns or (), self.columns(), self.name)
        for row in range(start[1], len(self.table), MAX_ROWS):
            part = self.table[row : row + MAX_ROWS]
            rows = _rows_of_frame(part, columns) if self.is_frame else list(part)
            yield block_of((0, row), rows)

    def location(self, unit: int, number: int) -> str:
        return f"{self.name}: row {number}"

    def text_bytes(self, column: str) -> int | None:
        block = next(self.blocks(0, (0, 0), [column]))
        return block.texts(column).nbytes * len(self.table) // len(block)

    def _digest(self) -> str:
        digest = xxhash.xxh3_64()
        for block in self.blocks(0, (0, 0), None):
            if isinstance(block.rows, list):
                for row in block.rows:
                    digest.update(json.dumps(row, default=repr).encode())
            else:
                digest.update(block.rows.serialize())
        return digest.hexdigest()


def block_of(start: Start, rows: pa.RecordBatch | list[dict[str, object]]) -> Block:
    """The block of rows that begins at `start`, where no line is counted but rows."""
    first = start[1] + 1
    return Block(start, rows, np.arange(first, first + len(rows)))


def _split(number: int, part: int, row: int, batch: pa.RecordBatch) -> Iterator[Block]:
    """The rows of a batch of any size in blocks, from one of them on."""
    for first in range(part * MAX_ROWS, len(batch), MAX_ROWS):
        start = (number * MAX_PARTS + first // MAX_ROWS, row + first)
        yield block_of(start, batch.slice(first, MAX_ROWS))


def _rows_of_columns(table: Mapping[str, Sequence[object]]) -> list[dict[str, object]]:
    names = list(table)
    rows = zip(*table.values(), strict=True)
    return [dict(zip(names, cells, strict=True)) for cells in rows]


def _rows_of_frame(
    frame: "pd.DataFrame", columns: Sequence[str] | None
) -> pa.RecordBatch | list[dict[str, object]]:
    """Arrow columns, or Python objects where a column holds several types."""
    renamed = frame.set_axis([str(name) for name in frame.columns], axis=1)
    chosen = renamed if columns is None else renamed[list(columns)]
    try:
        return pa.RecordBatch.from_pandas(chosen, preserve_index=False)
    except (ValueError, pa.ArrowTypeError, TypeError):  # A lone surrogate is a ValueError.
        return chosen.to_dict("records")
