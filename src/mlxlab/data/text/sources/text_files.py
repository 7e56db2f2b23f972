"""Text and JSON lines on disk, read in chunks that are permuted in every epoch.

The concatenated files are divided into equal chunks without reading them; a window is `CHUNKS_PER_WINDOW` chunks from
anywhere. So seeking costs nothing, and small files share windows.
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

CHUNKS_PER_WINDOW = 4
SAMPLE_BYTES = 2**18  # of a file, to estimate how much of it is text
MIN_FILE_BYTES = 1024  # smaller files count as this size, which limits the files of a window


class TextFiles:
    """A source of uncompressed files whose records can be found from anywhere.

    Args:
        settings: everything that determines the documents; part of the fingerprint.
        window_bytes: approximate bytes of a window, rounded to whole records.
        fractions: range of all bytes that is used, from 0 to 1; a record belongs to the range in which it begins.
    """

    def __init__(
        self,
        files: FileSet,
        split_records: RecordSplitter,
        parse: RecordParser,
        error_budget: ErrorBudget,
        settings: str,
        window_bytes: int = 2**22,
        fractions: tuple[float, float] = (0, 1),
    ) -> None:
        self.files, self.split_records, self.parse, self.error_budget = files, split_records, parse, error_budget
        self.chunk_bytes = max(window_bytes // CHUNKS_PER_WINDOW, 1)
        self.ends = np.cumsum(np.maximum(files.sizes, MIN_FILE_BYTES))
        self.low, self.high = (round(int(self.ends[-1]) * share) for share in fractions)
        self.bytes: int | None = round(int(files.sizes.sum()) * (fractions[1] - fractions[0]) * self._density())
        self.name = files.name
        self.fingerprint = f"{files.fingerprint()}:{settings},{self.chunk_bytes}" + (
            "" if fractions == (0, 1) else f",{fractions}"
        )

    @property
    def skipped_records(self) -> int:
        return self.error_budget.skipped_records

    def windows(self, seed: int, epoch: int, position: Position = None) -> Iterator[tuple[Position, list[Document]]]:
        """See `DocumentSource`. A position is the index of the window in the epoch's order."""
        count = -(-(self.high - self.low) // self.chunk_bytes)
        order = permutation(count, seed, Stream.FILE_ORDER, epoch)
        first = parse_window_index(position, -(-count // CHUNKS_PER_WINDOW))
        empty = first == 0
        for window in range(first, -(-count // CHUNKS_PER_WINDOW)):
            chunks = np.sort(order[window * CHUNKS_PER_WINDOW : (window + 1) * CHUNKS_PER_WINDOW])
            documents = [document for number in chunks for document in self._read_chunk(int(number))]
            self.error_budget.valid_records += len(documents)
            self.error_budget.check()
            if documents:
                empty = False
                yield window, documents
        self.error_budget.check(at_end=True)
        if empty:
            raise DataError(f"{self.name}: contains no text, only empty records")

    def _read_chunk(self, number: int) -> Iterator[Document]:
        """The documents that begin in a chunk of the concatenated files."""
        begin = self.low + number * self.chunk_bytes
        end = min(begin + self.chunk_bytes, self.high)
        for file_index in range(int(np.searchsorted(self.ends, begin, "right")), len(self.ends)):
            size = int(self.files.sizes[file_index])
            offset = int(self.ends[file_index]) - max(size, MIN_FILE_BYTES)
            if offset >= end:
                return
            yield from self._read_range(file_index, offset, max(begin - offset, 0), min(end - offset, size))

    def _read_range(self, file_index: int, offset: int, begin: int, end: int) -> Iterator[Document]:
        if begin >= end:
            return
        size = int(self.files.sizes[file_index])
        low, high = max(self.low - offset, 0), min(self.high - offset, size)
        with self.files.open(file_index) as file:
            for start, data in self.split_records(file, begin, end, size, low, high):
                try:
                    if data is None or len(data) > MAX_RECORD:
                        raise ValueError(f"a record of more than {MAX_RECORD} bytes")
                    text = self.parse(data.removeprefix(BOM) if start == 0 else data)
                except ValueError as error:
                    self.error_budget.skip((file_index, start), partial(self._describe, file_index, start, str(error)))
                else:
                    if text and not text.isspace():
                        yield Document(offset + start, text)

    def _density(self) -> float:
        """Bytes of text per byte of file at the start of the largest file: JSON is not all text."""
        file_index = int(self.files.sizes.argmax())
        size, text, record_bytes = int(self.files.sizes[file_index]), 0, 0
        with self.files.open(file_index) as file:
            for _, data in self.split_records(file, 0, min(size, SAMPLE_BYTES), size, 0, size):
                try:
                    text += len(self.parse(data or b"").encode())
                    record_bytes += len(data or b"")
                except ValueError:  # reported when the record is read for training
                    continue
        return text / record_bytes if text else 1.0

    def _describe(self, file_index: int, start: int, message: str) -> str:
        return f"{self.files.line(file_index, start)}: {message}"


def parse_window_index(position: Position, count: int) -> int:
    """The window of a saved position, 0 for None.

    Raises:
        DataError: the position is out of range.
    """
    if position is None:
        return 0
    if type(position) is not int or not 0 <= position < count:
        raise DataError(f"the saved position is malformed: expected a window in 0..{count - 1}, got {position!r}")
    return position
