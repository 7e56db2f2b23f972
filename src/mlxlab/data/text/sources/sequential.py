"""Formats that can only be read forwards: compressed files, CSV files, row groups of Parquet files.

Such units are permuted in every epoch; a window is the next `window` documents, across units if need be. A position is
(index of the unit in the epoch's order, *cursor within it), and each format can seek to a cursor.
"""

from collections.abc import Iterator
from typing import Protocol

from mlxlab.data.rng import Stream, permutation
from mlxlab.data.text.document import Document, Position
from mlxlab.data.text.sources.error_budget import ErrorBudget
from mlxlab.data.text.sources.file_set import FileSet
from mlxlab.errors import DataError

UnitCursor = tuple[int, int]  # a position within a unit, defined by the format; (0, 0) is the start
MEAN_CHARACTERS = 4096  # of a document; a window of longer documents holds fewer


class SequentialUnits(Protocol):
    """Files, or parts of files, that are read forwards."""

    name: str
    fingerprint: str
    bytes: int | None
    files: FileSet
    error_budget: ErrorBudget

    def __len__(self) -> int: ...

    def read(self, unit: int, cursor: UnitCursor) -> Iterator[tuple[UnitCursor, Document]]:
        """The documents of a unit from `cursor` on, each with the cursor after it."""
        ...

    def file_index(self, unit: int) -> int:
        """The index of the file that contains a unit."""
        ...


class SequentialSource:
    """A source made of sequential units.

    Args:
        window: maximum number of documents in a window; fewer if they are long.
    """

    def __init__(self, units: SequentialUnits, window: int) -> None:
        self.units, self.window = units, window
        self.name, self.bytes = units.name, units.bytes
        self.fingerprint = f"{units.fingerprint},{window}"

    @property
    def skipped_records(self) -> int:
        return self.units.error_budget.skipped_records

    def windows(self, seed: int, epoch: int, position: Position = None) -> Iterator[tuple[Position, list[Document]]]:
        """See `DocumentSource`. A position is [index of the unit in the epoch's order, *cursor]."""
        order = permutation(len(self.units), seed, Stream.UNIT_ORDER, epoch)
        first, cursor = _check(position, len(order))
        start: Position = [first, *cursor]
        documents: list[Document] = []
        size, empty = 0, position is None
        for index in range(first, len(order)):
            for after, document in self.units.read(int(order[index]), cursor):
                documents.append(document)
                size += len(document.text)
                if len(documents) >= self.window or size >= self.window * MEAN_CHARACTERS:
                    self.units.files.check(self.units.file_index(int(order[index])))
                    yield start, self._counted(documents)
                    start, documents, size, empty = [index, *after], [], 0, False
            cursor = (0, 0)
        if documents:
            yield start, self._counted(documents)
        elif empty:
            raise DataError(f"{self.name}: contains no text, only empty records")
        self.units.error_budget.check(at_end=True)

    def _counted(self, documents: list[Document]) -> list[Document]:
        self.units.error_budget.valid_records += len(documents)
        self.units.error_budget.check()
        return documents


def _check(position: Position, count: int) -> tuple[int, UnitCursor]:
    match position:
        case None:
            return 0, (0, 0)
        case [int(index), int(first), int(second)] if 0 <= index < count and first >= 0 and second >= 0:
            return index, (first, second)
    raise DataError(f"the saved position is malformed: expected a unit in 0..{count - 1}, got {position!r}")
