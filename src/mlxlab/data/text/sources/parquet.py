"""Text in a column of parquet files: groups of rows in any order, within a group a page at a time.

A mark is (rows before it in its group, 0). Going there unpacks the group's column up to it.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from mlxlab.data.text.document import Document
from mlxlab.data.text.sources.error_budget import ErrorBudget
from mlxlab.data.text.sources.file_set import FileSet
from mlxlab.data.text.sources.record_boundaries import MAX_RECORD
from mlxlab.data.text.sources.record_parsers import checked_text, missing_column
from mlxlab.data.text.sources.sequential import Mark
from mlxlab.errors import DataError

ROWS, BYTES = 128, 2**22  # made into text at a time: so many rows, fewer if they are long


class Group(NamedTuple):
    """A group of rows, and how many rows lie before it in all files."""

    shard: int
    number: int
    before: int
    at_once: int  # rows that are made into text together


class ParquetFiles:
    """Units of which each is a group of rows. All footers are read at the start.

    Raises:
        DataError: a file is not parquet, or has no such column of text.
    """

    def __init__(self, shards: FileSet, column: str, tolerance: ErrorBudget) -> None:
        self.shards, self.column, self.tolerance = shards, column, tolerance
        self.name, self.fingerprint = shards.name, f"{shards.fingerprint()}:parquet:{column}"
        self.groups: list[Group] = []
        self._rows = 0
        self.bytes: int | None = sum(self._add(int(shard)) for shard in np.flatnonzero(shards.sizes))
        if not self._rows:
            raise DataError(f"{self.name}: there is no row in it")

    def __len__(self) -> int:
        return len(self.groups)

    def shard(self, unit: int) -> int:
        return self.groups[unit].shard

    def read(self, unit: int, mark: Mark) -> Iterator[tuple[Mark, Document]]:
        import pyarrow

        group, row = self.groups[unit], 0
        with self.shards.open(group.shard) as file:
            try:
                for batch in self._open(file).iter_batches(
                    group.at_once, row_groups=[group.number], columns=[self.column]
                ):
                    for place in range(max(mark[0] - row, 0), len(batch)):
                        text = self._text(batch[0], place, group, row + place)
                        if text and not text.isspace():
                            yield (row + place + 1, 0), Document(group.before + row + place, text)
                    row += len(batch)
            except (pyarrow.ArrowException, OSError) as error:
                self.tolerance.fault((unit, "group"), partial(self._describe, group, row, _first_line(error)))

    def _text(self, column: Any, place: int, group: Group, row: int) -> str:
        try:
            text = checked_text(column[place].as_py(), self.column)
            if len(text) > MAX_RECORD:
                raise ValueError(f"a text of {len(text)} characters, expected <= {MAX_RECORD}")
            return text
        except UnicodeDecodeError as error:
            said = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
        except ValueError as error:
            said = str(error)
        self.tolerance.fault(group.before + row, partial(self._describe, group, row, said))
        return ""

    def _describe(self, group: Group, row: int, said: str) -> str:
        return f"{self.shards.path(group.shard)}: group {group.number}, row {row}: {said}"

    def _open(self, file: Any) -> Any:
        from pyarrow import parquet

        return parquet.ParquetFile(file, pre_buffer=False, buffer_size=2**18)

    def _add(self, shard: int) -> int:
        """Reads the footer of a file; the bytes of its column."""
        import pyarrow

        path = self.shards.path(shard)
        with self.shards.open(shard) as file:
            try:
                footer = self._open(file)
            except (pyarrow.ArrowException, OSError) as error:
                self.tolerance.fault(
                    (shard, "footer"), partial("{}:1: not parquet: {}".format, path, _first_line(error))
                )
                return 0
            schema, meta = footer.schema_arrow, footer.metadata
        if self.column not in schema.names:
            raise DataError(f"{path}:1: {missing_column(self.column, schema.names)}")
        kind = schema.field(self.column).type
        if not _is_text(kind):
            raise DataError(f"{path}:1: column {self.column!r} holds {kind}, expected text")
        place = next(n for n in range(meta.num_columns) if meta.schema.column(n).path == self.column)
        groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
        for number, group in enumerate(groups):
            each = group.column(place).total_uncompressed_size // max(group.num_rows, 1)
            self.groups.append(Group(shard, number, self._rows, min(max(BYTES // max(each, 1), 1), ROWS)))
            self._rows += group.num_rows
        return sum(group.column(place).total_uncompressed_size for group in groups)


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
