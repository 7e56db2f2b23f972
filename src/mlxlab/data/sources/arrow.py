"""Parquet files, and rows in memory, as sources."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from mlxlab.data.sources.block import (
    FIRST,
    Block,
    Columns,
    Records,
    Start,
    block_of,
    digest_blocks,
    keys_of,
)
from mlxlab.data.sources.files import Files
from mlxlab.data.sources.messages import first_line, require_columns, shorten
from mlxlab.errors import DataError

if TYPE_CHECKING:
    import io

    import pandas as pd
    from pyarrow import parquet

MAX_ROWS = 2**13
BATCH_BYTES = 2**20
DENSE_RATIO = 10  # decoded / stored bytes; most texts have less
DENSE_ROWS = 64  # most rows of a batch above that ratio: each may hold all decoded bytes
DENSE_BYTES = 2**27
FAULTS = (pa.ArrowException, OSError, ValueError)


class RowGroup(NamedTuple):
    """A unit of a Parquet file."""

    file: int
    number: int
    rows_before: int
    metadata: "parquet.RowGroupMetaData"


class ParquetFiles:
    """A `Source` whose units are row groups. Seeking decodes those columns of one that are read."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.name = files.name
        self.fingerprint = f"{files.fingerprint()}:parquet"
        self.groups: list[RowGroup] = []
        for index in range(len(files)):
            rows_before = 0
            metadata = self._metadata(index)
            for number in range(metadata.num_row_groups):
                group = metadata.row_group(number)
                if group.num_rows:
                    self.groups.append(RowGroup(index, number, rows_before, group))
                rows_before += group.num_rows
        self.units = len(self.groups)
        if not self.groups:
            raise DataError(f"{self.name}: contains no rows")

    def columns(self) -> Sequence[str]:
        return self._metadata(0).schema.to_arrow_schema().names

    def blocks(self, unit: int, start: Start, columns: Columns) -> Iterator[Block]:
        group = self.groups[unit]
        row = 0
        with self.files.open(group.file) as file:
            try:
                for batch in self._batches(file, group, columns):
                    if row >= start[1]:
                        yield block_of((0, row), batch)
                    row += len(batch)
            except FAULTS as error:
                raise DataError(f"{self.location(unit, 1)}: {first_line(error)}") from None
        self.files.check(group.file)

    def location(self, unit: int, number: int) -> str:
        group = self.groups[unit]
        return f"{self.files.path(group.file)}:row {group.rows_before + number}"

    def text_bytes(self, column: str) -> int | None:
        return sum(_bytes_of(group.metadata, [column])[0] for group in self.groups)

    def _metadata(self, index: int) -> "parquet.FileMetaData":
        from pyarrow import parquet

        with self.files.open(index) as file:
            try:
                return parquet.ParquetFile(file).metadata
            except FAULTS as error:
                path = self.files.path(index)
                raise DataError(f"{path}:1: not parquet: {first_line(error)}") from None

    def _batches(
        self, file: "io.BufferedReader", group: RowGroup, columns: Columns
    ) -> Iterator[pa.RecordBatch]:
        """Batches of about BATCH_BYTES; of few rows where texts may be repeated many times."""
        from pyarrow import parquet

        reader = parquet.ParquetFile(file, pre_buffer=False, buffer_size=2**18)
        names = reader.schema_arrow.names
        chosen = list(names if columns is None else columns)
        require_columns(chosen, names, self.files.path(group.file))
        decoded, stored = _bytes_of(group.metadata, chosen)
        max_rows = min(BATCH_BYTES * group.metadata.num_rows // max(decoded, 1), MAX_ROWS)
        if decoded > DENSE_RATIO * stored:
            max_rows = min(max_rows, DENSE_BYTES // decoded, DENSE_ROWS)
        yield from reader.iter_batches(max(max_rows, 1), [group.number], chosen, use_threads=False)


def _bytes_of(group: "parquet.RowGroupMetaData", columns: Sequence[str]) -> tuple[int, int]:
    """The decoded and the stored bytes of some columns, and of all that is below them."""
    decoded = 0
    stored = 0
    for chunk in map(group.column, range(group.num_columns)):
        if chunk.path_in_schema.partition(".")[0] in columns:
            decoded += chunk.total_uncompressed_size
            stored += chunk.total_compressed_size
    return decoded, stored


class TableRows:
    """A `Source` of rows in memory: a DataFrame, columns by name, or dicts, which a torch-style data set may hold."""

    units = 1

    def __init__(self, table: Any, name: str, fingerprint: str | None = None) -> None:
        self.name = name
        # A DataFrame is told by this method, so that pandas need not be imported.
        self.is_frame = hasattr(table, "iterrows")
        self.table: Any = table if self.is_frame else _dicts(table, name)
        if not len(self.table):
            raise DataError(f"{name}: contains no rows")
        names = self.columns()
        require_columns(names, names, name)
        self.fingerprint = fingerprint or f"{name}:{digest_blocks(self.blocks(0, FIRST, None))}"

    def columns(self) -> Sequence[str]:
        if self.is_frame:
            return [str(name) for name in self.table.columns]
        return keys_of(self.table[:MAX_ROWS])

    def blocks(self, unit: int, start: Start, columns: Columns) -> Iterator[Block]:
        require_columns(columns or (), self.columns(), self.name)
        for row in range(start[1], len(self.table), MAX_ROWS):
            part = self.table[row : row + MAX_ROWS]
            yield block_of((0, row), _rows_of_frame(part, columns) if self.is_frame else part)

    def location(self, unit: int, number: int) -> str:
        return f"{self.name}: row {number}"

    def text_bytes(self, column: str) -> int | None:
        return None


def _dicts(table: Any, name: str) -> Records:
    """The rows of columns, of an iterable, or of an object with an index as dicts; DataError for other rows."""
    if isinstance(table, Mapping):
        if len(set(map(len, table.values()))) > 1:
            raise DataError(f"{name}: expected columns of one length")
        return [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
    if hasattr(table, "__iter__"):
        rows = list(table)
    elif hasattr(table, "__len__"):
        rows = [table[index] for index in range(len(table))]
    else:
        raise DataError(f"data.source: expected rows, got {name}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            got = shorten(row)
            raise DataError(f"{name}: row {number}: expected a dict of columns, got {got}")
    return rows


def _rows_of_frame(frame: "pd.DataFrame", columns: Columns) -> pa.RecordBatch | Records:
    """Arrow columns, or Python objects where a column holds several types."""
    renamed = frame.rename(columns=str)
    chosen = renamed if columns is None else renamed[list(columns)]
    try:
        return pa.RecordBatch.from_pandas(chosen, preserve_index=False)
    except (ValueError, pa.ArrowTypeError, TypeError):  # A lone surrogate is a ValueError.
        return chosen.to_dict("records")
