"""Formats that can only be read forwards: compressed files, CSV files, row groups of Parquet files, shards of the hub.

Such units are permuted in every epoch; a window is the next `window` documents, across units if need be. A position is
(index of the unit in the epoch's order, *cursor within it), and each format can seek to a cursor.
"""

from collections.abc import Iterator
from typing import Annotated, Protocol

from mlxlab.constraints import Count, Ge, Lt
from mlxlab.data.batch import check_position
from mlxlab.data.rng import Stream, permutation
from mlxlab.data.text.document import Document, ErrorBudget, Position, Windows

UnitCursor = tuple[int, int]  # a position within a unit, defined by the format; (0, 0) is the start
UNIT_BITS = 40  # bits of a document id that hold its line or row in the unit
MEAN_CHARACTERS = 4096  # of a document; a window of longer documents holds fewer


class SequentialUnits(Protocol):
    """Files, or parts of files, that are read forwards."""

    name: str
    count: int
    fingerprint: str
    bytes: int | None
    error_budget: ErrorBudget

    def read(self, unit: int, cursor: UnitCursor) -> Iterator[tuple[UnitCursor, Document]]:
        """The documents of a unit from `cursor` on, each with the cursor after it; the text of some may be blank."""

    def check(self, unit: int, /) -> None:
        """Raises DataError if a unit has changed since the run began."""


class SequentialSource:
    """A source made of sequential units, in windows of at most `window` documents, fewer if they are long."""

    def __init__(self, units: SequentialUnits, window: int) -> None:
        self.units, self.window = units, window
        self.name, self.bytes, self.error_budgets = units.name, units.bytes, [units.error_budget]
        self.fingerprint = f"{units.fingerprint},{window}"

    def windows(self, seed: int, epoch: int, position: Position = None) -> Windows:
        """See `DocumentSource`. A position is [index of the unit in the epoch's order, *cursor]."""
        return self.units.error_budget.checked(self._read(seed, epoch, position), self.name, position is None)

    def _read(self, seed: int, epoch: int, position: Position) -> Windows:
        order = permutation(self.units.count, seed, Stream.UNIT_ORDER, epoch)
        start: Position = [0, 0, 0] if position is None else position
        first, *cursor = check_position(start, tuple[Annotated[int, Ge(0), Lt(len(order))], Count, Count])
        documents: list[Document] = []
        size = 0
        for index in range(first, len(order)):
            unit = int(order[index])
            for after, document in self.units.read(unit, (cursor[0], cursor[1])):
                if not document.text or document.text.isspace():
                    continue
                documents.append(document)
                size += len(document.text)
                if len(documents) >= self.window or size >= self.window * MEAN_CHARACTERS:
                    self.units.check(unit)
                    yield start, documents
                    start, documents, size = [index, *after], [], 0
            cursor = [0, 0]
        if documents:
            yield start, documents
