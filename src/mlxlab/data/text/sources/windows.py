"""Windows of documents: from anywhere in uncompressed files, or of units that can only be read forwards."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Protocol

import numpy as np

from mlxlab.constraints import Count, Ge, Lt
from mlxlab.data.batch import check_position
from mlxlab.data.rng import Stream, permutation
from mlxlab.data.text.document import Document, ErrorBudget, Position, Windows
from mlxlab.data.text.sources.file_set import FileSet
from mlxlab.data.text.sources.records import BOM, MAX_RECORD, ByteRange, RecordFormat

CHUNKS_PER_WINDOW = 4
SAMPLE_BYTES = 2**18  # of a file, to estimate how much of it is text
MIN_FILE_BYTES = 1024  # smaller files count as this size, which limits the files of a window
UnitCursor = tuple[int, int]  # a position within a unit, defined by the format; (0, 0) is the start
UNIT_BITS = 40  # bits of a document id that hold its line or row in the unit
MEAN_CHARACTERS = 4096  # of a document; a window of longer documents holds fewer


class TextFiles:
    """A source of uncompressed files whose records can be found from anywhere.

    The concatenated files are divided into equal chunks without reading them, which are permuted in every epoch; a
    window is `CHUNKS_PER_WINDOW` of them. So seeking costs nothing, and small files share windows.

    Args:
        window_bytes: approximate; windows consist of whole records.
        fractions: range of all bytes that is used, from 0 to 1; a record belongs to the range in which it begins.
    """

    def __init__(
        self,
        files: FileSet,
        records: RecordFormat,
        error_budget: ErrorBudget,
        window_bytes: int,
        fractions: tuple[float, float],
    ) -> None:
        self.files, self.records, self.error_budget, self.error_budgets = (
            files,
            records,
            error_budget,
            [error_budget],
        )
        self.chunk_bytes = max(window_bytes // CHUNKS_PER_WINDOW, 1)
        self.ends = np.cumsum(np.maximum(files.sizes, MIN_FILE_BYTES))
        self.low, self.high = (round(int(self.ends[-1]) * share) for share in fractions)
        self.bytes: int | None = round(
            int(files.sizes.sum()) * (fractions[1] - fractions[0]) * self._density()
        )
        self.name = files.name
        self.fingerprint = (
            f"{files.fingerprint()}:{records.settings},{self.chunk_bytes},{fractions}"
        )

    @property
    def skipped_records(self) -> int:
        return self.error_budget.skipped_records

    def windows(self, seed: int, epoch: int, position: Position = None) -> Windows:
        """See `DocumentSource`. A position is the index of the window in the epoch's order."""
        return self.error_budget.checked(
            self._read(seed, epoch, position), self.name, position is None
        )

    def _read(self, seed: int, epoch: int, position: Position) -> Windows:
        num_chunks = -(-(self.high - self.low) // self.chunk_bytes)
        num_windows = -(-num_chunks // CHUNKS_PER_WINDOW)
        order = permutation(num_chunks, seed, Stream.FILE_ORDER, epoch)
        first = 0
        if position is not None:
            (first,) = check_position([position], tuple[Annotated[int, Ge(0), Lt(num_windows)]])
        for window in range(first, num_windows):
            chunks = np.sort(order[window * CHUNKS_PER_WINDOW : (window + 1) * CHUNKS_PER_WINDOW])
            yield (
                window,
                [document for number in chunks for document in self._read_chunk(int(number))],
            )

    def _read_chunk(self, number: int) -> Iterator[Document]:
        """The documents that begin in a chunk of the concatenated files."""
        begin = self.low + number * self.chunk_bytes
        end = min(begin + self.chunk_bytes, self.high)
        for file_index in range(int(np.searchsorted(self.ends, begin, "right")), len(self.ends)):
            size = int(self.files.sizes[file_index])
            offset = int(self.ends[file_index]) - max(size, MIN_FILE_BYTES)
            if offset >= end:
                return
            if max(begin - offset, 0) < min(end - offset, size):
                yield from self._read_range(
                    file_index, offset, max(begin - offset, 0), min(end - offset, size)
                )

    def _read_range(self, file_index: int, offset: int, begin: int, end: int) -> Iterator[Document]:
        size = int(self.files.sizes[file_index])
        low, high = max(self.low - offset, 0), min(self.high - offset, size)
        with self.files.open(file_index) as file:
            for start, data in self.records.split(ByteRange(file, begin, end, size, low, high)):
                try:
                    if data is None or len(data) > MAX_RECORD:
                        raise ValueError(f"a record of more than {MAX_RECORD} bytes")
                    text = self.records.parse(data.removeprefix(BOM) if start == 0 else data)
                except ValueError as error:
                    self._skip(file_index, start, error)
                else:
                    if text and not text.isspace():
                        yield Document(offset + start, text)

    def _skip(self, file_index: int, start: int, error: ValueError) -> None:
        self.error_budget.skip(
            (file_index, start), lambda: f"{self.files.line(file_index, start)}: {error}"
        )

    def _density(self) -> float:
        """Bytes of text per byte of file at the start of the largest file: JSON is not all text."""
        file_index = int(self.files.sizes.argmax())
        size, text_bytes, record_bytes = int(self.files.sizes[file_index]), 0, 0
        with self.files.open(file_index) as file:
            for _, data in self.records.split(
                ByteRange(file, 0, min(size, SAMPLE_BYTES), size, 0, size)
            ):
                with suppress(ValueError):  # reported when the record is read for training
                    text_bytes += len(self.records.parse(data or b"").encode())
                    record_bytes += len(data or b"")
        return text_bytes / record_bytes if text_bytes else 1.0


class SequentialUnits(Protocol):
    """Compressed files, CSV files, row groups of Parquet files, shards of the hub: what can only be read forwards."""

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
    """A source made of sequential units, which are permuted in every epoch.

    A window is the next `window` documents, fewer if they are long, across units if need be.
    """

    def __init__(self, units: SequentialUnits, window: int) -> None:
        self.units, self.window = units, window
        self.name, self.bytes, self.error_budgets = units.name, units.bytes, [units.error_budget]
        self.fingerprint = f"{units.fingerprint},{window}"

    @property
    def skipped_records(self) -> int:
        return self.units.error_budget.skipped_records

    def windows(self, seed: int, epoch: int, position: Position = None) -> Windows:
        """See `DocumentSource`. A position is [index of the unit in the epoch's order, *cursor]."""
        return self.units.error_budget.checked(
            self._read(seed, epoch, position), self.name, position is None
        )

    def _read(self, seed: int, epoch: int, position: Position) -> Windows:
        order = permutation(self.units.count, seed, Stream.UNIT_ORDER, epoch)
        start: Position = [0, 0, 0] if position is None else position
        first, *cursor = check_position(
            start, tuple[Annotated[int, Ge(0), Lt(len(order))], Count, Count]
        )
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
