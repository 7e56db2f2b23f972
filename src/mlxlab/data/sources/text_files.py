"""Text files as a source: blocks of whole records, from any block on.

A parser finds where the last complete record of some bytes ends, and reads those before. Plain files
are divided into ranges of bytes, which are units: so one large file is shuffled as many small ones are.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from mlxlab.data.sources.block import FIRST, Block, Columns, ErrorBudget, Records, Start
from mlxlab.data.sources.files import ByteStream, Files
from mlxlab.errors import ConfigError, DataError

BLOCK_BYTES = 2**20
MIN_RANGE = 2**16  # bytes of a unit of a plain file, of which there are at least 64 if they fit
MAX_RANGE = 2**20
MAX_RECORD = 2**24  # bytes; a longer record ends the run, such as a quote that is never closed
SAMPLE_BYTES = 2**18
WHOLE = 2**62
ALL = (0.0, 1.0)

# A unit: a file, and the first byte and the end of where its records begin.
Range = tuple[int, int, int]
Skip = Callable[[int, str], None]  # (line of a malformed record in the unit, what is wrong with it)


@dataclass
class Parsed:
    """The complete records at the beginning of some bytes."""

    rows: Records = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # the line of each row
    used: int = 0  # bytes
    lines: int = 0  # lines of the unit before what is left


class Parser(Protocol):
    """Reads the records of one file."""

    def columns(self) -> Sequence[str]:
        """The names of all columns; of JSON those of the first block, of plain text none."""

    def parse(self, data: bytes, lines: int, is_last: bool, skip: Skip) -> Parsed:
        """The complete records of `data`; all of it if `is_last`.

        Args:
            lines: of the unit before `data`.
            skip: called for each malformed record.

        Raises:
            DataError: a fault after which no record can be found.
        """


class TextFormat(NamedTuple):
    """A format of text files."""

    settings: str  # all that determines what is parsed
    # Reads the header, if there is one; raises DataError if a column does not exist.
    open: Callable[[ByteStream, Columns], Parser]
    # Moves to the first record that begins at or after a byte, or MAX_RECORD behind it; None if there is no way.
    seek: Callable[[ByteStream, int], None] | None


@dataclass(eq=False)
class TextFiles:
    """A `Source` of text files.

    Args:
        encoding: None is UTF-8, or UTF-16 after its byte order mark.
        fractions: the part of all bytes that is read, from 0 to 1.
    """

    files: Files
    format: TextFormat
    errors: ErrorBudget
    encoding: str | None
    fractions: tuple[float, float]

    def __post_init__(self) -> None:
        self.name = self.files.name
        settings = f"{self.format.settings}:{self.encoding}:{self.fractions}"
        self.fingerprint = f"{self.files.fingerprint()}:{settings}"
        self.range_bytes = min(max(sum(self.files.sizes) // 64, MIN_RANGE), MAX_RANGE)
        self.ranges = list(self._ranges())
        self.units = len(self.ranges)

    def columns(self) -> Sequence[str]:
        with self._open(0) as stream:
            return self.format.open(stream, None).columns()

    def blocks(self, unit: int, start: Start, columns: Columns) -> Iterator[Block]:
        index, begin, end = self.ranges[unit]
        with self._open(index) as stream:
            try:
                parser = self.format.open(stream, columns)
                first = stream.offset
                if start != FIRST:
                    first = start[0]
                elif begin:
                    first = self._record_start(stream, index, begin)
                    if first >= begin - 1 + MAX_RECORD:
                        raise self._too_long(unit, 1)
                last = self._record_start(stream, index, end)
                stream.seek(first)
                for block in self._read(stream, parser, unit, (first, start[1]), last):
                    self.files.check(index)
                    yield block
            except DataError:
                self.files.check(index)  # A file that changed is the cause of what it looks like.
                raise
        self.files.check(index)

    def location(self, unit: int, number: int) -> str:
        index, begin, _ = self.ranges[unit]
        if begin:
            number += self._lines_before(index, begin)
        return f"{self.files.path(index)}:{number}"

    def text_bytes(self, column: str) -> int | None:
        """See `Source`: by the share of text, and the ratio of compression, at the start of a file."""
        with self._open(int(np.argmax(self.files.sizes))) as stream:
            try:
                parser = self.format.open(stream, [column])
                data = stream.read(SAMPLE_BYTES)
                parsed = parser.parse(data, 0, len(data) < SAMPLE_BYTES, ignore)
            except DataError:
                return None
            ratio = stream.offset / max(stream.stored_bytes, 1) if self.files.codec else 1.0
        cells = Block(FIRST, parsed.rows, np.array(parsed.numbers)).strings(column, ignore)
        text = sum(len(cell.encode()) for cell in cells if cell)
        density = text / parsed.used if parsed.used else 1.0
        low, high = self.fractions
        return round(sum(self.files.sizes) * (high - low) * ratio * density)

    def _read(
        self, stream: ByteStream, parser: Parser, unit: int, start: Start, end: int
    ) -> Iterator[Block]:
        def skip(number: int, message: str) -> None:
            self.errors.skip((unit, number), lambda: f"{self.location(unit, number)}: {message}")

        data = b""
        size = BLOCK_BYTES
        is_last = False
        while not is_last and start[0] < end:
            more = stream.read(min(size, end - stream.offset))
            data += more
            is_last = not more or stream.offset >= end
            parsed = parser.parse(data, start[1], is_last, skip)
            if parsed.rows:
                yield Block(start, parsed.rows, np.asarray(parsed.numbers, np.int64))
            start = (start[0] + parsed.used, parsed.lines)
            data = data[parsed.used :]
            if len(data) > MAX_RECORD:
                raise self._too_long(unit, start[1] + 1)
            size = BLOCK_BYTES
            if not parsed.used:  # The record is long, so twice as much is read.
                size = min(len(data), MAX_RECORD + 1 - len(data))

    def _too_long(self, unit: int, number: int) -> DataError:
        cause = "in CSV perhaps a quote that is never closed"
        where = self.location(unit, number)
        return DataError(f"{where}: a record of more than {MAX_RECORD} bytes ({cause})")

    @contextmanager
    def _open(self, index: int) -> Iterator[ByteStream]:
        with self.files.open(index) as file:
            yield ByteStream(file, self.files.path(index), self.files.codec, self.encoding)

    def _ranges(self) -> Iterator[Range]:
        total = sum(self.files.sizes)
        low, high = (round(total * fraction) for fraction in self.fractions)
        is_part = self.fractions != ALL
        before = 0
        for index, size in enumerate(self.files.sizes):
            first = max(low - before, 0)
            last = min(high - before, size)
            before += size
            if (is_part or size > self.range_bytes) and self._is_plain(index):
                for begin in range(first, last, self.range_bytes):
                    yield index, begin, min(begin + self.range_bytes, last)
            elif is_part:
                only = "a range of plain .txt or .jsonl only"
                raise ConfigError(f"data.reading.split: {only}, got {self.files.path(index)}")
            else:
                yield index, 0, WHOLE

    def _is_plain(self, index: int) -> bool:
        """Whether records are found from any byte on: in UTF-8, as far as the start tells."""
        if self.format.seek is None or self.files.codec:
            return False
        with self._open(index) as stream:
            return stream.is_plain

    def _record_start(self, stream: ByteStream, index: int, begin: int) -> int:
        """Where the first record begins at or after a byte, if that record is not too long."""
        if begin <= stream.begin:
            return stream.begin
        if begin >= self.files.sizes[index] or self.format.seek is None:
            return begin
        self.format.seek(stream, begin)
        return stream.offset

    def _lines_before(self, index: int, begin: int) -> int:
        """Lines before the first record of a range: read only for a message."""
        lines = 0
        with self._open(index) as stream:
            end = self._record_start(stream, index, begin)
            stream.seek(0)
            while piece := stream.read(min(end - stream.offset, BLOCK_BYTES)):
                lines += piece.count(b"\n")
        return lines


def seek_line(stream: ByteStream, begin: int) -> None:
    """Moves to the first line that begins at or after a byte, or MAX_RECORD behind it."""
    stream.seek(begin - 1)
    stream.read_line(MAX_RECORD)


def ignore(number: int, fault: object) -> None:
    """A malformed record or cell counts when it is read for training."""
