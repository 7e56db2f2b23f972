"""Text in a column of Parquet files: row groups in any order, each read in small batches.

A cursor is (rows read of the group, 0). Seeking decodes the column of the group up to it.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np

from mlxlab.data.input_files import refuse_bomb
from mlxlab.data.text.document import Document, ErrorBudget
from mlxlab.data.text.sources.file_set import FileSet
from mlxlab.data.text.sources.records import column_text, missing_column
from mlxlab.data.text.sources.windows import UnitCursor
from mlxlab.errors import DataError

if TYPE_CHECKING:
    from pyarrow import parquet

MAX_BATCH_ROWS, MAX_BATCH_BYTES = 128, 2**22  # decoded at a time
DENSE_RATIO = 10  # of decoded to stored bytes, above that of most texts
MAX_ENCODED_ROWS = 2**14  # each batch copies the dictionary
ROW_BYTES = 64  # memory of a row whatever its text: limits the rows that a few bytes can stand for


class RowGroup(NamedTuple):
    """A row group of a file; `rows_before` counts the rows before it."""

    file_index: int
    number: int
    rows_before: int
    rows: int
    batch_rows: int  # rows that are decoded at a time
    stored: int  # bytes of the columns in the file
    keep_encoded: (
        bool  # read repeated texts once: slower, but needed where few bytes can hold a long text
    )


class ParquetFiles:
    """Sequential units that are row groups, from all footers. Raises DataError if the column is missing or no text."""

    def __init__(self, files: FileSet, column: str, error_budget: ErrorBudget) -> None:
        self.files, self.column, self.error_budget = files, column, error_budget
        self.name, self.fingerprint = files.name, f"{files.fingerprint()}:parquet:{column}"
        self.groups: list[RowGroup] = []
        self._rows = 0
        self.bytes: int | None = sum(
            self._add_file(int(file_index)) for file_index in np.flatnonzero(files.sizes)
        )
        self.count = len(self.groups)
        if not any(group.rows for group in self.groups):
            raise DataError(f"{self.name}: contains no rows")

    def check(self, unit: int) -> None:
        self.files.check(self.groups[unit].file_index)

    def read(self, unit: int, cursor: UnitCursor) -> Iterator[tuple[UnitCursor, Document]]:
        import pyarrow

        group, row, decoded = self.groups[unit], 0, 0
        with self.files.open(group.file_index) as file:
            try:
                encoded = [self.column] if group.keep_encoded else []
                for batch in open_parquet(file, encoded).iter_batches(
                    group.batch_rows, row_groups=[group.number], columns=[self.column]
                ):
                    first, row = row, row + len(batch)
                    for number in range(max(cursor[0], first), row):
                        text = ""
                        try:
                            text = column_text(
                                {self.column: batch[0][number - first].as_py()}, self.column
                            )
                        except ValueError as error:
                            self._skip((unit, number), group, number, error)
                        decoded += len(text) + ROW_BYTES
                        refuse_bomb(decoded, group.stored)
                        yield (number + 1, 0), Document(group.rows_before + number, text)
            except (pyarrow.ArrowException, OSError) as error:
                self._skip((unit, "group"), group, row, error)

    def _skip(self, key: Hashable, group: RowGroup, row: int, error: Exception) -> None:
        path, first_line = self.files.path(group.file_index), str(error).splitlines()[0]
        self.error_budget.skip(key, f"{path}: group {group.number}, row {row}: {first_line}")

    def _add_file(self, file_index: int) -> int:
        """Adds the row groups of a file; returns the bytes of its text column."""
        from pyarrow import types

        footer = read_footer(self.files, file_index, self.error_budget)
        if footer is None:
            return 0
        path, schema = self.files.path(file_index), footer.schema_arrow
        if self.column not in schema.names:
            raise DataError(f"{path}:1: {missing_column(self.column, schema.names)}")
        type_ = schema.field(self.column).type
        value_type = type_.value_type if types.is_dictionary(type_) else type_
        if not (
            types.is_string(value_type)
            or types.is_large_string(value_type)
            or types.is_string_view(value_type)
        ):
            raise DataError(f"{path}:1: column {self.column!r} holds {type_}, expected text")
        groups, size = row_groups(
            self.files, file_index, footer, [self.column], self._rows, self.error_budget
        )
        self.groups += groups
        self._rows += footer.metadata.num_rows
        return size


def read_footer(
    files: FileSet, file_index: int, error_budget: ErrorBudget
) -> "parquet.ParquetFile | None":
    """A closed file, for its schema and metadata; None if it is no Parquet file and may be skipped."""
    import pyarrow

    with files.open(file_index) as file:
        try:
            return open_parquet(file)
        except (pyarrow.ArrowException, OSError) as error:
            message = f"{files.path(file_index)}:1: not parquet: {str(error).splitlines()[0]}"
            error_budget.skip((file_index, "footer"), message)
            return None


def row_groups(
    files: FileSet,
    file_index: int,
    footer: "parquet.ParquetFile",
    columns: Sequence[str],
    rows_before: int,
    error_budget: ErrorBudget,
) -> tuple[list[RowGroup], int]:
    """The row groups of a file, without decompression bombs, and the decoded bytes of some columns in them."""
    meta, groups, size = footer.metadata, [], 0
    prefixes = tuple(f"{name}." for name in columns)
    paths = [f"{meta.schema.column(n).path}." for n in range(meta.num_columns)]
    leaves = [n for n, path in enumerate(paths) if path.startswith(prefixes)]
    for number in range(meta.num_row_groups):
        rows, chunks = (
            meta.row_group(number).num_rows,
            [meta.row_group(number).column(leaf) for leaf in leaves],
        )
        decoded = sum(chunk.total_uncompressed_size for chunk in chunks)
        stored = min(
            sum(chunk.total_compressed_size for chunk in chunks), int(files.sizes[file_index])
        )
        try:
            refuse_bomb(max(decoded, rows * ROW_BYTES), stored)
        except OSError as error:
            error_budget.skip(
                (file_index, number), f"{files.path(file_index)}: group {number}: {error}"
            )
            rows_before += rows
            continue
        keep_encoded = decoded > DENSE_RATIO * stored
        max_rows = MAX_ENCODED_ROWS if keep_encoded else MAX_BATCH_ROWS
        batch_rows = min(max(MAX_BATCH_BYTES * rows // max(decoded, 1), 1), max_rows)
        groups.append(
            RowGroup(file_index, number, rows_before, rows, batch_rows, stored, keep_encoded)
        )
        rows_before += rows
        size += decoded
    return groups, size


def open_parquet(file: BinaryIO, dictionary: list[str] | None = None) -> "parquet.ParquetFile":
    """Opens a file; values of `dictionary` stay encoded, so a batch holds repeated texts once."""
    from pyarrow import parquet

    return parquet.ParquetFile(
        file, read_dictionary=dictionary, pre_buffer=False, buffer_size=2**18
    )
