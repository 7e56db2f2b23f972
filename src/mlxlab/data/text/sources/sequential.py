"""Documents of what can only be read forwards: packed files, CSV files, groups of rows of parquet.

Such units come in an order drawn anew each epoch; a window is the next so many documents, across units if need be. A
place is (unit in that order, mark within it), and each format knows how to go to a mark without reading documents.
"""

from collections.abc import Iterator
from typing import Protocol

from mlxlab.data.rng import Stream, permutation
from mlxlab.data.text.document import Document, Position
from mlxlab.data.text.sources.error_budget import ErrorBudget
from mlxlab.data.text.sources.file_set import FileSet
from mlxlab.errors import DataError

Mark = tuple[int, int]  # a place within a unit: what the numbers mean is the format's affair; (0, 0) is its start
CHARACTERS = 4096  # of an average document, above which a window holds fewer documents


class SequentialUnits(Protocol):
    """What is read forwards."""

    name: str
    fingerprint: str
    bytes: int | None
    shards: FileSet
    tolerance: ErrorBudget

    def __len__(self) -> int: ...

    def read(self, unit: int, mark: Mark) -> Iterator[tuple[Mark, Document]]:
        """The documents of a unit from a mark on, each with the mark of what follows it."""
        ...

    def shard(self, unit: int) -> int:
        """The file that a unit lies in."""
        ...


class SequentialSource:
    """A source of units.

    Args:
        units: what is read.
        window: documents of a window at most; fewer if they are long.
    """

    def __init__(self, units: SequentialUnits, window: int) -> None:
        self.units, self.window = units, window
        self.name, self.bytes = units.name, units.bytes
        self.fingerprint = f"{units.fingerprint},{window}"

    @property
    def skipped_records(self) -> int:
        return self.units.tolerance.skipped_records

    def windows(self, seed: int, epoch: int, position: Position = None) -> Iterator[tuple[Position, list[Document]]]:
        """See `Source`. A place is [unit in the epoch's order, mark]."""
        order = permutation(len(self.units), seed, Stream.UNIT_ORDER, epoch)
        first, mark = _check(position, len(order))
        here: Position = [first, *mark]
        documents: list[Document] = []
        size, empty = 0, position is None
        for index in range(first, len(order)):
            for after, document in self.units.read(int(order[index]), mark):
                documents.append(document)
                size += len(document.text)
                if len(documents) >= self.window or size >= self.window * CHARACTERS:
                    self.units.shards.check(self.units.shard(int(order[index])))
                    yield here, self._full(documents)
                    here, documents, size, empty = [index, *after], [], 0, False
            mark = (0, 0)
        if documents:
            yield here, self._full(documents)
        elif empty:
            raise DataError(f"{self.name}: there is no text in it, only empty records")
        self.units.tolerance.judge(at_end=True)

    def _full(self, documents: list[Document]) -> list[Document]:
        self.units.tolerance.sound += len(documents)
        self.units.tolerance.judge()
        return documents


def _check(position: Position, count: int) -> tuple[int, Mark]:
    match position:
        case None:
            return 0, (0, 0)
        case [int(index), int(first), int(second)] if 0 <= index < count and first >= 0 and second >= 0:
            return index, (first, second)
    raise DataError(f"the saved position is malformed: expected a unit in 0..{count - 1}, got {position!r}")
