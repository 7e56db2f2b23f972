"""Text in a column of Parquet files: row groups in any order, each read in small batches.

A cursor is (rows read of the group, 0). Seeking decodes the column of the group up to it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from mlxlab.data.sources.files import refuse_bomb
from mlxlab.data.text.document import ErrorBudget
from mlxlab.data.text.sources.file_set import FileSet

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
