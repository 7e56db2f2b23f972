"""Text and JSON lines on disk: windows are stretches of the files, read in an order drawn anew each epoch.

All files, one behind the other, are cut into equal stretches without looking into them; a window is `TOGETHER`
stretches from anywhere. So the first window comes at once, every place is reached at once, small files share windows.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np

from mlxlab.data.rng import Stream, permutation
from mlxlab.data.text.document import Document, Position
from mlxlab.data.text.sources.error_budget import ErrorBudget
from mlxlab.data.text.sources.file_set import FileSet
from mlxlab.data.text.sources.record_boundaries import MAX_RECORD, RecordSplitter
from mlxlab.data.text.sources.record_parsers import BOM, RecordParser
from mlxlab.errors import DataError

TOGETHER = 4
SAMPLE = 2**18  # bytes that tell how much of a file is text
SMALL = 1024  # bytes that a smaller file counts for, so that a window has not too many to open


class TextFiles:
    """A source of uncompressed files whose records can be found from anywhere.

    Args:
        shards: the files.
        cut: finds records.
        read: makes text of a record.
        tolerance: what becomes of malformed ones.
        settings: all that decides how documents are cut; becomes part of the fingerprint.
        window_bytes: bytes of a window, about; records are never cut by it.
        part: the stretch of all bytes that is used, from 0 to 1; a record is in the part in which it begins.
    """

    def __init__(
        self,
        shards: FileSet,
        cut: RecordSplitter,
        read: RecordParser,
        tolerance: ErrorBudget,
        settings: str,
        window_bytes: int = 2**22,
        part: tuple[float, float] = (0, 1),
    ) -> None:
        self.shards, self.cut, self.read, self.tolerance = shards, cut, read, tolerance
        self.stretch = max(window_bytes // TOGETHER, 1)
        self.ends = np.cumsum(np.maximum(shards.sizes, SMALL))
        self.low, self.high = (round(int(self.ends[-1]) * share) for share in part)
        self.bytes: int | None = round(int(shards.sizes.sum()) * (part[1] - part[0]) * self._density())
        self.name = shards.name
        self.fingerprint = f"{shards.fingerprint()}:{settings},{self.stretch}" + ("" if part == (0, 1) else f",{part}")

    @property
    def skipped_records(self) -> int:
        return self.tolerance.skipped_records

    def windows(self, seed: int, epoch: int, position: Position = None) -> Iterator[tuple[Position, list[Document]]]:
        """See `Source`. A place is the number of the window in its epoch's order."""
        count = -(-(self.high - self.low) // self.stretch)
        order = permutation(count, seed, Stream.FILE_ORDER, epoch)
        given = parse_window_index(position, -(-count // TOGETHER))
        empty = given == 0
        for window in range(given, -(-count // TOGETHER)):
            stretches = np.sort(order[window * TOGETHER : (window + 1) * TOGETHER])
            documents = [document for number in stretches for document in self._stretch(int(number))]
            self.tolerance.sound += len(documents)
            self.tolerance.judge()
            if documents:
                empty = False
                yield window, documents
        self.tolerance.judge(at_end=True)
        if empty:
            raise DataError(f"{self.name}: there is no text in it, only empty records")

    def _stretch(self, number: int) -> Iterator[Document]:
        """The documents that begin in a stretch of the files laid end to end."""
        begin = self.low + number * self.stretch
        end = min(begin + self.stretch, self.high)
        for shard in range(int(np.searchsorted(self.ends, begin, "right")), len(self.ends)):
            size = int(self.shards.sizes[shard])
            offset = int(self.ends[shard]) - max(size, SMALL)
            if offset >= end:
                return
            yield from self._part(shard, offset, max(begin - offset, 0), min(end - offset, size))

    def _part(self, shard: int, offset: int, begin: int, end: int) -> Iterator[Document]:
        if begin >= end:
            return
        size = int(self.shards.sizes[shard])
        low, high = max(self.low - offset, 0), min(self.high - offset, size)
        with self.shards.open(shard) as file:
            for start, data in self.cut(file, begin, end, size, low, high):
                try:
                    if data is None or len(data) > MAX_RECORD:
                        raise ValueError(f"a record of more than {MAX_RECORD} bytes")
                    text = self.read(data.removeprefix(BOM) if start == 0 else data)
                except ValueError as error:
                    self.tolerance.fault((shard, start), partial(self._describe, shard, start, str(error)))
                else:
                    if text and not text.isspace():
                        yield Document(offset + start, text)

    def _density(self) -> float:
        """Bytes of text for a byte of file, where the largest file begins: JSON has more than text in it."""
        shard = int(self.shards.sizes.argmax())
        size, text, whole = int(self.shards.sizes[shard]), 0, 0
        with self.shards.open(shard) as file:
            for _, data in self.cut(file, 0, min(size, SAMPLE), size, 0, size):
                try:
                    text += len(self.read(data or b"").encode())
                    whole += len(data or b"")
                except ValueError:  # it is told when it is read in earnest
                    continue
        return text / whole if text else 1.0

    def _describe(self, shard: int, start: int, said: str) -> str:
        return f"{self.shards.line(shard, start)}: {said}"


def parse_window_index(position: Position, count: int) -> int:
    """The window that a saved position names, 0 for None.

    Raises:
        DataError: there is no such window.
    """
    if position is None:
        return 0
    if type(position) is not int or not 0 <= position < count:
        raise DataError(f"the saved position is malformed: expected a window in 0..{count - 1}, got {position!r}")
    return position
