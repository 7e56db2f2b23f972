"""Rows of files, of a hub data set or of scikit-learn: columns of text that are memory-mapped from the cache."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from mlxlab.constraints import MaxLen, MinLen
from mlxlab.data.arrow_cache import cached_table
from mlxlab.data.cache import content_key
from mlxlab.data.dataset import Table
from mlxlab.data.labelled.sources.first_malformed import first_malformed, to_metadata
from mlxlab.data.labelled.sources.line_rows import LineRows
from mlxlab.data.labelled.sources.open_source import open_source
from mlxlab.data.labelled.sources.source import MAX_CHUNK_ROWS, Chunk, RowSource, merged
from mlxlab.data.text.document import MAX_MALFORMED_FRACTION, ErrorBudget, OnError
from mlxlab.data.text.sources.records import require_columns
from mlxlab.errors import DataError

if TYPE_CHECKING:
    import pyarrow

FORMAT = 2
PLACE = (
    ""  # name of the first column, which holds the place of each row; columns of a source have one
)
SKIPPED = b"skipped"  # key of the metadata that counts malformed rows
MAX_LISTED = 12  # columns in the log


@dataclass(frozen=True)
class RowReading:
    """Options for reading rows.

    Args:
        delimiter: of .csv files; null takes the most frequent of comma, semicolon, tab and bar in the header. That of
            .tsv files is a tab.
        encoding: of text files; null is UTF-8, with or without byte order mark, or UTF-16 with one. Others, such as
            latin-1 and cp1252, must be named.
        missing: cells that count as missing besides empty ones, such as [NA, "?"].
        config: configuration name of a Hugging Face data set.
        split: of a Hugging Face data set; null is train.
        revision: branch, tag or commit of a Hugging Face data set.
    """

    delimiter: Annotated[str, MinLen(1), MaxLen(1)] | None
    encoding: str | None
    missing: list[str]
    config: str | None
    split: str | None
    revision: str | None

    @property
    def absent(self) -> list[str]:
        return list(dict.fromkeys(["", *self.missing]))

    def open(self, source: str) -> RowSource:
        """The source of this name; raises as `open_rows`."""
        return open_source(
            source, self.delimiter, self.encoding, self.config, self.split, self.revision
        )


class Rows:
    """Rows whose columns are nullable text. Numbers are their shortest repr, booleans true or false, lists JSON."""

    def __init__(
        self, source: RowSource, table: "pyarrow.Table", fingerprint: str, description: list[str]
    ) -> None:
        self.name, self.fingerprint, self.description = source.name, fingerprint, description
        self.malformed = _skipped(table)  # rows that were skipped
        self.first_malformed = first_malformed(table.schema.metadata, source)
        self.columns = tuple(table.column_names[1:])
        self._table, self._source = table, source
        chunks = table.column(0).chunks
        self._starts = np.cumsum([0, *map(len, chunks)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def require(self, names: Iterable[str]) -> None:
        """Raises MissingColumnError if some of these columns do not exist."""
        require_columns(self._source.header, names, self.columns)

    def column(self, name: str) -> "pyarrow.ChunkedArray":
        """The text of a column, null where it is missing; DataError if there is none."""
        self.require([name])
        return self._table.column(name)

    def cells(self, name: str, rows: np.ndarray | None = None) -> list[str | None]:
        """The text of some rows, in their order; None is all rows."""
        column = self.column(name)
        if rows is None:
            cells: list[str | None] = column.to_pylist()
            return cells
        numbers = np.searchsorted(self._starts, rows, "right") - 1  # of the chunk of each row
        order = np.argsort(numbers, kind="stable")
        result: list[str | None] = [None] * len(rows)
        for positions in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            number = int(numbers[positions[0]]) if len(positions) else 0
            texts = column.chunk(number).take(rows[positions] - self._starts[number]).to_pylist()
            for position, text in zip(positions.tolist(), texts, strict=True):
                result[position] = text
        return result

    def location(self, row: int) -> str:
        """Where a row stands, for messages: `reviews.csv:17`."""
        return self._source.location(self._place(row))

    def first_left_out(self, row: int | None) -> str:
        """The location of this row, or of the first malformed one if that comes before it; "" without either."""
        first = self.first_malformed
        if first is not None and (row is None or first.place < self._place(row)):
            return self._source.location(first.place)
        return "" if row is None else self.location(row)

    def _place(self, row: int) -> int:
        number = int(np.searchsorted(self._starts, row, "right")) - 1
        place: int = self._table.column(0).chunk(number)[row - int(self._starts[number])].as_py()
        return place


def open_rows(
    source: str,
    reading: RowReading,
    cache: Path,
    on_error: OnError = "strict",
    columns: Sequence[str] | None = None,
    max_left_out: float = MAX_MALFORMED_FRACTION,
) -> Rows:
    """The rows of a source; read once, then mapped from the cache.

    Args:
        source: a file, folder or glob of .csv, .tsv, .jsonl (each also .gz and .zst) or .parquet; owner/name on the
            hub; or sklearn:NAME (wine, breast_cancer, digits, diabetes, iris), whose label is the column `target`.
        cache: folder for the rows as they were read.
        on_error: strict refuses malformed rows, skip leaves them out.
        columns: those that are needed; None is all.
        max_left_out: the fraction of the rows that skip may leave out. It is not checked for rows in the cache.

    Raises:
        InputNotFoundError: no such file or folder.
        DataError: the content does not match the format, a column does not exist, or there is no row.
        ConfigError: an option does not go with this source.
        ServiceUnavailableError: the hub, or a package that reads the format, is unavailable.
    """
    opened = reading.open(source)
    names = None if columns is None else list(dict.fromkeys(columns))
    key = content_key(
        format=FORMAT,
        rows=opened.fingerprint,
        missing=reading.absent,
        columns=names,
        errors=on_error,
    )

    def batches() -> "Iterator[pyarrow.RecordBatch]":
        errors = ErrorBudget(
            on_error, max_fraction=max_left_out, key="data.on_error=skip data.max_left_out"
        )
        every = opened.columns() if names is None else names
        chunks = _checked(
            opened, opened.chunks(every, errors, MAX_CHUNK_ROWS), errors, reading.absent
        )
        for chunk in merged(chunks, MAX_CHUNK_ROWS):
            batch = _to_batch(chunk)
            yield batch
        yield batch[:0].replace_schema_metadata(
            {SKIPPED: str(errors.skipped_records), **to_metadata(errors, opened)}
        )

    table, _ = cached_table(cache / f"rows-{key}.arrow", batches, _check_batch, _skipped)
    listed = [
        *table.column_names[1 : MAX_LISTED + 1],
        *["..."][: len(table.column_names) > MAX_LISTED + 1],
    ]
    skipping = (
        f"; skipped {skipped:,} malformed row{'s' * (skipped != 1)}"
        if (skipped := _skipped(table))
        else ""
    )
    return Rows(
        opened,
        table,
        key,
        [f"{opened.name}: {len(table):,} rows, columns {', '.join(listed)}{skipping}"],
    )


def _to_batch(chunk: Chunk) -> "pyarrow.RecordBatch":
    """The batch with the places first."""
    import pyarrow

    arrays = [pyarrow.array(chunk.places, pyarrow.int64()), *chunk.columns.values()]
    return pyarrow.RecordBatch.from_arrays(arrays, [PLACE, *chunk.columns])


def _check_batch(batch: "pyarrow.RecordBatch") -> None:
    import pyarrow

    types = [pyarrow.int64(), *[pyarrow.string()] * (batch.num_columns - 1)]
    if batch.schema.types != types or batch.schema.names[0] != PLACE:
        raise DataError("other columns than those of rows")


def _skipped(table: "pyarrow.Table") -> int:
    """How many malformed rows were left out; DataError if the table does not say."""
    try:
        return int(table.schema.metadata[SKIPPED])
    except (KeyError, TypeError, ValueError):
        raise DataError("no count of skipped rows") from None


def read_chunks(
    source: str,
    reading: RowReading,
    rows: int,
    columns: Sequence[str] | None = None,
    on_columns: Callable[[Iterable[str]], None] = lambda names: None,
    errors: ErrorBudget | None = None,
) -> Iterator[tuple[Table, list[str], list[int]]]:
    """Chunks of up to `rows` rows with the location and number of each, in constant memory. Arguments as `open_rows`.

    Args:
        errors: counts malformed rows; None refuses them.
        on_columns: gets the names of all columns: at the start, of JSON lines at the end.
    """
    opened, errors = reading.open(source), errors or ErrorBudget("strict", hint="")
    json_lines = opened if isinstance(opened, LineRows) and opened.is_json else None
    if json_lines is None:
        on_columns(opened.columns())
    chunks = _checked(opened, opened.chunks(columns, errors, rows), errors, reading.absent)
    for chunk in merged(chunks, rows):
        table = {name: cells.to_pylist() for name, cells in chunk.columns.items()}
        yield table, [opened.location(place) for place in chunk.places], chunk.numbers
    if json_lines is not None:
        on_columns(json_lines.names_read)


def _checked(
    source: RowSource, chunks: Iterator[Chunk], errors: ErrorBudget, missing: Sequence[str]
) -> Iterator[Chunk]:
    """The chunks with null for cells that count as missing; DataError if there is no row."""
    import pyarrow

    absent = pyarrow.array(missing, pyarrow.string())
    for chunk in chunks:
        errors.valid_records += len(chunk.places)
        errors.check_fraction()
        yield chunk._replace(
            columns={name: _without(cells, absent) for name, cells in chunk.columns.items()}
        )
    errors.check_fraction(0)
    if not errors.valid_records:
        raise DataError(f"{source.name}:2: no rows")


def _without(cells: "pyarrow.Array", values: "pyarrow.Array") -> "pyarrow.Array":
    """The cells with null in place of some values."""
    from pyarrow import compute

    matches = compute.is_in(cells, values)
    return compute.if_else(matches, None, cells) if matches.true_count else cells
