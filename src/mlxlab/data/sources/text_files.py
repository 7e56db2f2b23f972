"""Text files as a source: blocks of whole records, from any block on.

A format finds where the last complete record of some bytes ends, and parses those before. Plain files
are divided into ranges of bytes, which are units: so one large file is shuffled as many small ones are.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from mlxlab.data.sources.block import FIRST, Block, ErrorBudget, Start, skip_empty_files
from mlxlab.data.sources.files import ByteStream, Files, describe_binary, describe_start
from mlxlab.errors import DataError

BLOCK_BYTES = 2**20
MIN_RANGE = 2**16  # bytes of a unit of a plain file, of which there are at least 64 if they fit
MAX_RANGE = 2**20
MAX_RECORD = 2**24  # bytes; a longer record is malformed, such as a quote that is never closed
MAX_DISCARDED = 2**28  # bytes of such a record that are read to find its end
SAMPLE_BYTES = 2**18
WHOLE = 2**62


class Fault(NamedTuple):
    """A malformed record."""

    number: int  # its line in the unit
    message: str


class Parsed(NamedTuple):
    """The complete records at the beginning of some bytes."""

    block: Block
    used: int  # bytes
    lines: int  # line breaks among them
    faults: list[Fault]


class MalformedFileError(ValueError):
    """A fault after which no record can be found."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class Parser(Protocol):
    """Parses the records of one file."""

    def parse(self, data: bytes, start: Start, is_last: bool) -> Parsed:
        """The complete records of `data`; all of it if `is_last`."""


class TextFormat(Protocol):
    """A format of text files."""

    @property
    def is_splittable(self) -> bool:
        """Whether records are found from any byte on."""

    @property
    def is_prose(self) -> bool:
        """Whether any text is valid, markup included."""

    @property
    def settings(self) -> str:
        """All that determines what is parsed."""

    def columns(self, stream: ByteStream) -> Sequence[str]: ...

    def open(self, stream: ByteStream, columns: Sequence[str] | None) -> Parser:
        """Reads the header, if there is one; raises DataError if a column does not exist."""

    def seek_record(self, stream: ByteStream, begin: int) -> None:
        """Moves to the first record that begins at or after a byte, which is not 0."""


class Range(NamedTuple):
    """A unit: the records of a file that begin in some of its bytes."""

    file: int
    begin: int
    end: int


class TextFiles:
    """A `Source` of text files.

    Args:
        encoding: None is UTF-8, or UTF-16 after its byte order mark.
        fractions: the part of all bytes that is read, from 0 to 1.
    """

    def __init__(
        self,
        files: Files,
        text_format: TextFormat,
        errors: ErrorBudget,
        encoding: str | None = None,
        fractions: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        skip_empty_files(files, errors)
        self.files = files
        self.format = text_format
        self.errors = errors
        self.encoding = encoding
        self.fractions = fractions
        self.name = files.name
        self.fingerprint = f"{files.fingerprint()}:{text_format.settings}:{encoding}:{fractions}"
        self.range_bytes = min(max(sum(files.sizes) // 64, MIN_RANGE), MAX_RANGE)
        self.ranges = list(self._ranges())
        self.units = len(self.ranges)
        self._long_records: dict[int, tuple[int, int]] = {}  # file -> a byte in it, and its end

    def columns(self) -> Sequence[str]:
        stream = self._open(self.files.nonempty()[0])
        try:
            return self.format.columns(stream)
        finally:
            stream.close()

    def blocks(self, unit: int, start: Start, columns: Sequence[str] | None) -> Iterator[Block]:
        index, begin, end = self.ranges[unit]
        stream = self._open(index)
        try:
            parser = self.format.open(stream, columns)
            first = stream.offset
            last = self._record_start(stream, index, end)
            if start != FIRST:
                first = start[0]
                if stream.is_plain and first > self.files.sizes[index]:
                    raise DataError(f"{stream.path}: the saved position is behind the end")
            elif begin:
                first = self._record_start(stream, index, begin)
            if first < last:
                stream.seek(first)
                for block in self._read(stream, parser, unit, (first, start[1]), last):
                    self.files.check(index)
                    yield block
        except DataError:
            self.files.check(index)  # A file that changed is the cause of what it then looks like.
            raise
        finally:
            stream.close()
        self.files.check(index)

    def location(self, unit: int, number: int) -> str:
        index, begin, _ = self.ranges[unit]
        if begin:
            number += self._lines_before(index, begin)
        return f"{self.files.path(index)}:{number}"

    def text_bytes(self, column: str) -> int | None:
        """See `Source`: by the share of text, and the ratio of compression, at the start of a file."""
        index = int(np.argmax(self.files.sizes))
        stream = self._open(index)
        try:
            parser = self.format.open(stream, [column])
            start = (stream.offset, 0)
            data = stream.read(SAMPLE_BYTES)
            parsed = parser.parse(data, start, len(data) < SAMPLE_BYTES)
            cells = parsed.block.strings(column, _ignore)
            text = sum(len(cell.encode()) for cell in cells if cell)
            ratio = stream.offset / max(stream.stored_bytes, 1) if self.files.codec else 1.0
        except (DataError, MalformedFileError):
            return None
        finally:
            stream.close()
        low, high = self.fractions
        density = text / parsed.used if parsed.used else 1.0
        return round(sum(self.files.sizes) * (high - low) * ratio * density)

    def _read(
        self, stream: ByteStream, parser: Parser, unit: int, start: Start, end: int
    ) -> Iterator[Block]:
        data = b""
        size = BLOCK_BYTES
        while start[0] < end:
            more = stream.read(min(size, end - stream.offset))
            data += more
            is_last = not more or stream.offset >= end
            if not data:
                return
            parsed = self._parse(parser, unit, data, start, is_last)
            size = BLOCK_BYTES
            if not parsed.used:
                if len(data) <= MAX_RECORD:
                    size = min(len(data), MAX_RECORD + 1 - len(data))
                    continue
                parsed = self._parse_first_line(stream, parser, unit, data, start)
            for fault in parsed.faults:
                self._skip(unit, fault)
            if len(parsed.block):
                self.errors.valid += len(parsed.block)
                yield parsed.block
            start = (start[0] + parsed.used, start[1] + parsed.lines)
            data = data[parsed.used :]
            if is_last:
                return

    def _parse(self, parser: Parser, unit: int, data: bytes, start: Start, is_last: bool) -> Parsed:
        try:
            return parser.parse(data, start, is_last)
        except MalformedFileError as error:
            raise DataError(f"{self.location(unit, error.number)}: {error}") from None

    def _parse_first_line(
        self, stream: ByteStream, parser: Parser, unit: int, data: bytes, start: Start
    ) -> Parsed:
        """Gives up a record that is too long: its first line is malformed, or all of it."""
        used = data.find(b"\n") + 1
        if used:
            return self._parse(parser, unit, data[:used], start, True)
        self._skip(unit, Fault(start[1] + 1, f"a record of more than {MAX_RECORD} bytes"))
        used = len(data) + discard_line(stream)
        return Parsed(Block(start, [], np.zeros(0, np.int64)), used, 1, [])

    def _skip(self, unit: int, fault: Fault) -> None:
        self.errors.skip(
            (unit, fault.number), lambda: f"{self.location(unit, fault.number)}: {fault.message}"
        )

    def _open(self, index: int) -> ByteStream:
        file = self.files.open(index)
        path = self.files.path(index)
        try:
            stream = ByteStream(file, path, self.files.codec, self.encoding)
            describe = describe_binary if self.format.is_prose else describe_start
            description = describe(stream.peek())
        except BaseException:
            file.close()
            raise
        if description:
            file.close()
            raise DataError(f"{path}:1:1: this is {description}; expected text")
        return stream

    def _ranges(self) -> Iterator[Range]:
        total = sum(self.files.sizes)
        low, high = (round(total * fraction) for fraction in self.fractions)
        before = 0
        for index, size in enumerate(self.files.sizes):
            first = max(low - before, 0)
            last = min(high - before, size)
            before += size
            if last > first:
                yield from self._ranges_of(index, first, last)

    def _ranges_of(self, index: int, first: int, last: int) -> Iterator[Range]:
        if not self._is_splittable(index):
            if self.fractions != (0.0, 1.0):
                path = self.files.path(index)
                raise DataError(f"{path}: data.reading.split: a range of plain .txt or .jsonl only")
            yield Range(index, 0, WHOLE)
            return
        for begin in range(first, last, self.range_bytes):
            yield Range(index, begin, min(begin + self.range_bytes, last))

    def _is_splittable(self, index: int) -> bool:
        """Whether the file is plain UTF-8, as far as its start tells."""
        if self.files.codec or not self.format.is_splittable:
            return False
        if self.files.sizes[index] <= self.range_bytes and self.fractions == (0.0, 1.0):
            return False  # It is one unit in any case.
        stream = self._open(index)
        stream.close()
        return stream.is_plain

    def _record_start(self, stream: ByteStream, index: int, begin: int) -> int:
        """Where the first record begins at or after a byte, a function of the file and the byte."""
        if begin <= stream.begin:
            return stream.begin
        if begin >= self.files.sizes[index] or begin == WHOLE:
            return begin
        inside, end = self._long_records.get(index, (0, 0))
        if inside <= begin < end:
            return end
        self.format.seek_record(stream, begin)
        if stream.offset - begin > MAX_RECORD:  # It is not to be read for every range within it.
            self._long_records[index] = (begin, stream.offset)
        return stream.offset

    def _lines_before(self, index: int, begin: int) -> int:
        """Lines before the first record of a range: read only for a message."""
        stream = self._open(index)
        end = self._record_start(stream, index, begin)
        stream.close()
        lines = 0
        with self.files.open(index) as file:
            while end > 0 and (piece := file.read(min(end, BLOCK_BYTES))):
                end -= len(piece)
                lines += piece.count(b"\n")
        return lines


def seek_line(stream: ByteStream, begin: int) -> None:
    """Moves to the first line that begins at or after a byte."""
    stream.seek(begin - 1)
    discard_line(stream)


def discard_line(stream: ByteStream) -> int:
    """Reads up to the next line break; returns the number of bytes."""
    discarded = 0
    while line := stream.read_line(BLOCK_BYTES):
        discarded += len(line)
        if line.endswith(b"\n"):
            break
        if discarded > MAX_DISCARDED:
            raise DataError(f"{stream.path}: a record of more than {MAX_DISCARDED} bytes")
    return discarded


def _ignore(index: int, error: ValueError) -> None:
    """A bad cell counts when it is read for training."""
