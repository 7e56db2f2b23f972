"""Rows of Parquet files."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from mlxlab.data.labelled.sources.arrow_text import check_type, text_array
from mlxlab.data.labelled.sources.source import MAX_CHUNK_CELLS, UNIT_BITS, Chunk, check_names
from mlxlab.data.sources.files import refuse_bomb
from mlxlab.data.text.document import ErrorBudget
from mlxlab.data.text.sources.file_set import FileSet
from mlxlab.data.text.sources.parquet import (
    ROW_BYTES,
    RowGroup,
    open_parquet,
    read_footer,
    row_groups,
)
from mlxlab.data.text.sources.records import require_columns
from mlxlab.errors import DataError

if TYPE_CHECKING:
    import pyarrow
    from pyarrow import parquet

Cells: TypeAlias = (
    "tuple[dict[str, pyarrow.Array], list[int]]"  # of each column, and the places of the rows
)
STRICT = ErrorBudget(
    "strict", hint=""
)  # for files and row groups, which are more than malformed rows


class ParquetRows:
    """Rows of files with the same columns. A place is file << UNIT_BITS | row, which counts from 1."""

    def __init__(self, files: FileSet) -> None:
        self.files, self.name, self.fingerprint = files, files.name, files.digest()
        self.header = f"{files.path(0)}:1"

    def location(self, place: int) -> str:
        return f"{self.files.path(place >> UNIT_BITS)}:row {place % (1 << UNIT_BITS)}"

    def columns(self) -> tuple[str, ...]:
        first = self.files.first_nonempty()
        footer = self._footer(first)
        names = footer.schema_arrow.names
        check_names(names, f"{self.files.path(first)}:1")
        return tuple(names)

    def chunks(
        self, columns: Sequence[str] | None, errors: ErrorBudget, max_rows: int
    ) -> Iterator[Chunk]:
        every, rows_before = self.columns(), 0
        for index in range(len(self.files)):
            path = self.files.path(index)
            if not self.files.sizes[index]:
                errors.skip((index, "empty"), f"{path}:1: the file is empty (0 bytes)")
                continue
            footer = self._footer(index)
            schema = footer.schema_arrow
            if sorted(schema.names) != sorted(every):
                got, first = ", ".join(schema.names[:12]), self.files.path(0)
                raise DataError(
                    f"{path}:1: columns {got}; expected {', '.join(every[:12])} as in {first}"
                )
            names = list(every if columns is None else columns)
            require_columns(f"{path}:1", names, every)
            for name in names:
                check_type(name, schema.field(name).type, f"{path}:1")
            groups, _ = row_groups(self.files, index, footer, names, 0, STRICT)
            for group in groups:
                for columns_read, places in self._read(group, names, errors, max_rows):
                    numbers = [rows_before + place % (1 << UNIT_BITS) for place in places]
                    if places:
                        yield Chunk(columns_read, places, numbers)
            rows_before += footer.metadata.num_rows

    def _footer(self, index: int) -> "parquet.ParquetFile":
        footer = read_footer(self.files, index, STRICT)
        assert footer is not None  # else it would be skipped
        return footer

    def _read(
        self, group: RowGroup, names: list[str], errors: ErrorBudget, max_rows: int
    ) -> Iterator[Cells]:
        import pyarrow

        row, decoded, size = (
            group.rows_before,
            0,
            min(group.batch_rows, max_rows, -(-MAX_CHUNK_CELLS // len(names))),
        )
        with self.files.open(group.file_index) as file:
            try:
                reader = open_parquet(file, names if group.keep_encoded else None)
                for batch in reader.iter_batches(size, row_groups=[group.number], columns=names):
                    decoded += _text_bytes(batch) + ROW_BYTES * len(batch)
                    refuse_bomb(decoded, group.stored)
                    yield self._cells(batch, group.file_index, row, names, errors)
                    row += len(batch)
            except (pyarrow.ArrowException, OSError, ValueError) as error:
                message = f"{self.location(group.file_index << UNIT_BITS | row + 1)}: {str(error).splitlines()[0]}"
                raise DataError(message) from None

    def _cells(
        self,
        batch: "pyarrow.RecordBatch",
        index: int,
        row: int,
        names: list[str],
        errors: ErrorBudget,
    ) -> Cells:
        import pyarrow

        places = [index << UNIT_BITS | number for number in range(row + 1, row + len(batch) + 1)]
        malformed: set[int] = set()

        def skip(column: str, number: int, error: ValueError) -> None:
            malformed.add(number)
            errors.skip(
                places[number], f"{self.location(places[number])}: column {column!r}: {error}"
            )

        cells = {name: text_array(batch.column(name), partial(skip, name)) for name in names}
        if malformed:
            valid = [number for number in range(len(places)) if number not in malformed]
            cells = {
                name: array.take(pyarrow.array(valid, pyarrow.int64()))
                for name, array in cells.items()
            }
            places = [places[number] for number in valid]
        return cells, places


def _text_bytes(batch: "pyarrow.RecordBatch") -> int:
    """Bytes of all text when the encoded columns are decoded."""
    import pyarrow
    from pyarrow import compute

    size = batch.nbytes
    for column in batch.columns:
        if pyarrow.types.is_dictionary(column.type):
            lengths = compute.binary_length(column.dictionary.cast(pyarrow.large_binary()))
            size += compute.sum(lengths.take(column.indices)).as_py() or 0
    return size
