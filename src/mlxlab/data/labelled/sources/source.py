"""The interface of a source of labelled rows, and the chunks that it yields."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mlxlab.data.text.document import ErrorBudget
from mlxlab.errors import DataError

if TYPE_CHECKING:
    import pyarrow

MAX_COLUMNS = 10_000
MAX_CHUNK_CELLS = 2**22
MAX_NAME = 1000  # characters of a column's name
MAX_CHUNK_ROWS, MAX_CHUNK_BYTES = 2**13, 2**23
UNIT_BITS = 40  # bits of a place that hold the line or row within the file


class Chunk(NamedTuple):
    """Some rows: the text of each column, and of each row its place and number.

    Attributes:
        places: file << UNIT_BITS | line.
        numbers: from 1, of all rows of the source, malformed ones included.
    """

    columns: "dict[str, pyarrow.Array]"
    places: list[int]
    numbers: list[int]


def text_chunk(
    columns: Mapping[str, Sequence[str | None]], places: list[int], numbers: list[int]
) -> Chunk:
    """A chunk of these cells."""
    import pyarrow

    return Chunk(
        {name: pyarrow.array(cells, pyarrow.string()) for name, cells in columns.items()},
        places,
        numbers,
    )


def merged(chunks: Iterable[Chunk], max_rows: int) -> Iterator[Chunk]:
    """The rows in chunks of up to `max_rows` and about `MAX_CHUNK_BYTES`, across small chunks of the same columns."""
    pending: list[Chunk] = []
    rows = size = 0
    for chunk in chunks:
        if pending and (
            rows + len(chunk.places) > max_rows or [*chunk.columns] != [*pending[0].columns]
        ):
            yield _concatenated(pending)
            pending, rows, size = [], 0, 0
        pending.append(chunk)
        rows, size = (
            rows + len(chunk.places),
            size + sum(cells.nbytes for cells in chunk.columns.values()),
        )
        if size >= MAX_CHUNK_BYTES:
            yield _concatenated(pending)
            pending, rows, size = [], 0, 0
    if pending:
        yield _concatenated(pending)


def _concatenated(chunks: list[Chunk]) -> Chunk:
    import pyarrow

    columns = {
        name: pyarrow.concat_arrays([chunk.columns[name] for chunk in chunks])
        for name in chunks[0].columns
    }
    places, numbers = (
        [*chain.from_iterable(each)] for each in zip(*(chunk[1:] for chunk in chunks), strict=True)
    )
    return Chunk(columns, places, numbers)


class RowSource(Protocol):
    """Rows that can be read forwards."""

    name: str
    header: str  # where the names of the columns stand, for messages
    fingerprint: str  # of the content, and of all settings on which the rows depend

    def columns(self) -> tuple[str, ...]:
        """The names of all columns. JSON lines are read in full for it."""

    def chunks(
        self, columns: Sequence[str] | None, errors: ErrorBudget, max_rows: int
    ) -> Iterator[Chunk]:
        """The rows in chunks of 1 to `max_rows`, each with these columns (None: all).

        JSON lines without `columns` yield those that occurred so far.

        Raises:
            DataError: malformed rows (unless `errors` skips them), or a column does not exist.
        """

    def location(self, place: int) -> str:
        """The place of a row, for messages."""


def check_names(names: Sequence[str], location: str) -> None:
    """Raises DataError unless these can be the names of columns."""
    if len(names) > MAX_COLUMNS:
        raise DataError(f"{location}: {len(names)} columns, expected at most {MAX_COLUMNS}")
    for index, name in enumerate(names):
        if not name.strip():
            raise DataError(f"{location}: column {index + 1} of {len(names)} has no name")
        if len(name) > MAX_NAME:
            raise DataError(
                f"{location}: the name of column {index + 1} has {len(name)} characters"
            )
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{location}: column {name[:60]!r} occurs twice")
