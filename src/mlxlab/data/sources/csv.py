"""CSV: each block is parsed by pyarrow; one that has a fault again by Python's csv, which knows the line.

pyarrow alone would not do: its errors name no line, it has no position to resume from, and it takes a
stray quote for text without a word.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from mlxlab.data.sources.block import Block, Start
from mlxlab.data.sources.files import ByteStream
from mlxlab.data.sources.messages import not_utf8, require_columns
from mlxlab.data.sources.text_files import MAX_RECORD, Fault, Parsed, seek_line
from mlxlab.errors import DataError

UNNAMED = "unnamed column "
DELIMITERS = ",;\t|"
MAX_COLUMNS = 10_000
QUOTE = ord('"')
NEWLINE = ord("\n")


@dataclass(frozen=True)
class Csv:
    """CSV files with a header.

    Args:
        delimiter: null takes the most frequent of comma, semicolon, tab and bar in the header.
        quoting: whether quotes enclose texts; without, they are text. Null encloses, and refuses
            those that span several lines where the delimiter is a tab.
    """

    delimiter: str | None = None
    quoting: bool | None = None
    is_splittable = False
    is_prose = False

    @property
    def settings(self) -> str:
        return f"csv:{self.delimiter}:{self.quoting}"

    def columns(self, stream: ByteStream) -> Sequence[str]:
        return self._read_header(stream).names

    def open(self, stream: ByteStream, columns: Sequence[str] | None) -> "CsvParser":
        header = self._read_header(stream)
        where = f"{stream.path}:1"
        names = header.names if columns is None else columns
        require_columns(names, header.names, where)
        for name in names:
            if header.names.count(name) > 1:
                raise DataError(f"{where}: column {name!r} occurs twice")
        return CsvParser(header, names, self.quoting)

    def seek_record(self, stream: ByteStream, begin: int) -> None:
        seek_line(stream, begin)

    def _read_header(self, stream: ByteStream) -> "Header":
        """Reads the first record, which may span lines."""
        data = b""
        is_quoting = self.quoting is not False
        while line := stream.read_line(MAX_RECORD):
            data += line
            if not is_quoting or data.count(b'"') % 2 == 0 or len(data) > MAX_RECORD:
                break
        try:
            text = data.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            column = len(data[: error.start].decode()) + 1
            raise DataError(f"{stream.path}:1:{column}: {not_utf8(data[error.start])}") from None
        unquoted = re.sub(r'"[^"]*"', "", text)
        delimiter = self.delimiter or max(DELIMITERS, key=unquoted.count)
        lines = text.splitlines(keepends=True)
        reader = csv.reader(lines, delimiter=delimiter, quoting=_quoting(is_quoting))
        try:
            with _long_fields():
                fields = [name.strip() for name in next(reader, [])]
        except csv.Error as error:
            raise DataError(f"{stream.path}:1: {error}") from None
        if not any(fields):
            raise DataError(f"{stream.path}:1: no names of columns, expected a header and rows")
        if len(fields) > MAX_COLUMNS:
            raise DataError(f"{stream.path}:1: {len(fields)} columns, expected <= {MAX_COLUMNS}")
        names = [name or f"{UNNAMED}{number}" for number, name in enumerate(fields, 1)]
        return Header(names, delimiter, data.count(b"\n"))


class Header(NamedTuple):
    """The names of the columns."""

    names: list[str]
    delimiter: str
    lines: int


def is_unnamed(column: str) -> bool:
    """Whether a header gives this column no name, as that of the index that pandas writes."""
    return column.startswith(UNNAMED)


class CsvParser:
    """A `Parser`: the rows of one file, with some of its columns."""

    def __init__(self, header: Header, names: Sequence[str], quoting: bool | None) -> None:
        self.header = header
        self.names = list(names)
        self.indices = [header.names.index(name) for name in names]
        self.encloses = quoting is not False
        self.refuses_lines = quoting is None and header.delimiter == "\t"
        fields = [f"f{number}" for number in range(len(header.names))]
        self.read_options = pa.csv.ReadOptions(
            column_names=fields,
            use_threads=False,
            block_size=2 * MAX_RECORD,
        )
        self.parse_options = pa.csv.ParseOptions(
            delimiter=header.delimiter,
            quote_char='"' if self.encloses else False,
            newlines_in_values=self.encloses,
        )
        self.convert_options = pa.csv.ConvertOptions(
            column_types=dict.fromkeys(fields, pa.string()),
            include_columns=[fields[index] for index in self.indices],
            strings_can_be_null=False,
        )
        delimiter = re.escape(header.delimiter.encode())
        self.stray_quote = re.compile(
            rb'"(?<![\n"' + delimiter + rb']")(?:"")*(?!["\r\n]|' + delimiter + rb"|\Z)"
        )

    def parse(self, data: bytes, start: Start, is_last: bool) -> Parsed:
        lines_before = start[1] or self.header.lines
        ends = self._record_ends(data)
        if is_last and (not len(ends) or ends[-1] < len(data)):
            data += b"\n"  # The last line has no end.
            ends = self._record_ends(data)
        used = int(ends[-1]) if len(ends) else 0
        records = data[:used]
        rest = data[used:]
        if (is_last and rest) or self._has_stray_quote(rest):
            # The parity of quotes does not tell where records end.
            return self._parse_slowly(data, start, lines_before, is_last)
        if not used:
            return Parsed(Block(start, [], np.zeros(0, np.int64)), 0, 0, [])

        lines = self._lines(records, ends, lines_before)
        batch = None
        if not self._has_fault(records):
            batch = self._parse_quickly(records)
        if batch is None or len(batch) != len(lines):
            return self._parse_slowly(data, start, lines_before, is_last)
        lines_used = lines_before - start[1] + records.count(b"\n")
        return Parsed(Block(start, batch, lines), used, lines_used, [])

    def _parse_quickly(self, records: bytes) -> pa.RecordBatch | None:
        """The rows by pyarrow; None if it finds a fault."""
        try:
            table = pa.csv.read_csv(
                pa.py_buffer(records),
                self.read_options,
                self.parse_options,
                self.convert_options,
            )
        except pa.ArrowInvalid:
            return None
        arrays = [column.combine_chunks() for column in table.columns]
        return pa.RecordBatch.from_arrays(arrays, self.names)

    def _record_ends(self, data: bytes) -> np.ndarray:
        """The bytes behind each line break that is outside quotes."""
        values = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(values == NEWLINE)
        if self.encloses and b'"' in data:
            quotes = np.flatnonzero(values == QUOTE)
            ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
        return ends + 1

    def _has_fault(self, records: bytes) -> bool:
        """Whether Python's csv must look: for a lone CR, a stray quote, a text of several lines."""
        if records.count(b"\r") != records.count(b"\r\n"):
            return True
        if not self.encloses or b'"' not in records:
            return False
        return self.refuses_lines or self._has_stray_quote(records)

    def _has_stray_quote(self, data: bytes) -> bool:
        """Whether a quote neither begins nor ends a field."""
        if not self.encloses or b'"' not in data:
            return False
        return self.stray_quote.search(b"\n" + data) is not None

    def _lines(self, records: bytes, ends: np.ndarray, lines_before: int) -> np.ndarray:
        """The line of each record that is not blank."""
        values = np.frombuffer(records, np.uint8)
        starts = np.concatenate([[0], ends[:-1]])
        first = values[starts]
        is_lf = first == NEWLINE
        is_crlf = (first == ord("\r")) & (ends - starts == 2)
        is_blank = is_lf | is_crlf

        if len(ends) == records.count(b"\n"):
            lines = np.arange(len(ends))
        else:
            breaks = np.flatnonzero(values == NEWLINE)
            lines = np.searchsorted(breaks, starts)
        numbers = lines_before + 1 + lines
        return numbers[~is_blank]

    def _parse_slowly(self, data: bytes, start: Start, lines_before: int, is_last: bool) -> Parsed:
        """Parses record by record, and names the line of those that are malformed."""
        lines = Lines(data, lines_before)
        rows: list[list[str]] = []
        numbers: list[int] = []
        faults: list[Fault] = []
        used = 0
        lines_used = lines_before
        while used < len(data):
            first = lines.line + 1
            row, message = self._read_record(lines)
            is_cut = not is_last and lines.offset >= len(data)
            if is_cut and (message or not data.endswith(b"\n")):
                break  # The record goes on in the next block.
            if message:
                lines.go_back(first)
                faults.append(Fault(first, message))
            elif row:
                rows.append(row)
                numbers.append(first)
            used = lines.offset
            lines_used = lines.line
        cells = list(zip(*rows, strict=True)) or [()] * len(self.header.names)
        arrays = [pa.array(cells[index], pa.string()) for index in self.indices]
        batch = pa.RecordBatch.from_arrays(arrays, self.names)
        block = Block(start, batch, np.array(numbers, np.int64))
        return Parsed(block, used, lines_used - start[1], faults)

    def _read_record(self, lines: "Lines") -> tuple[list[str], str]:
        """The fields of the next record, and what is wrong with it."""
        first = lines.line + 1
        try:
            reader = csv.reader(
                lines, strict=True, delimiter=self.header.delimiter, quoting=_quoting(self.encloses)
            )
            with _long_fields():
                row = next(reader, [])
        except UnicodeDecodeError as error:
            return [], not_utf8(error.object[error.start])
        except csv.Error as error:
            return [], _describe(error)
        width = len(self.header.names)
        if row and len(row) != width:
            return row, f"a row of {len(row)} fields, expected {width} as in the header"
        if self.refuses_lines and lines.line > first:
            span = f"a quoted text that spans the lines {first} to {lines.line}"
            ways = "data.reading.quoting=false reads quotes as text, true joins the lines"
            return row, f"{span}; {ways}"
        return row, ""


class Lines:
    """The lines of some bytes as text; a lone CR does not end a line."""

    def __init__(self, data: bytes, lines_before: int) -> None:
        self.pieces = data.split(b"\n")
        if not self.pieces[-1]:
            self.pieces.pop()
        self.first = lines_before
        self.line = lines_before  # that was read last
        self.offset = 0
        self.size = len(data)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        index = self.line - self.first
        if index >= len(self.pieces):
            raise StopIteration
        piece = self.pieces[index]
        self.line += 1
        self.offset = min(self.offset + len(piece) + 1, self.size)
        return piece.decode() + "\n"

    def go_back(self, line: int) -> None:
        """The next line is that after `line`: a quote may not be closed where it should be."""
        behind = self.pieces[line - self.first : self.line - self.first]
        if behind:
            self.line = line
            end = sum(len(piece) + 1 for piece in self.pieces[: line - self.first])
            self.offset = min(end, self.size)


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lets Python's csv read fields as long as a record; the limit is one for all of the program."""
    limit = csv.field_size_limit(MAX_RECORD)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _quoting(encloses: bool) -> Literal[0, 3]:
    return csv.QUOTE_MINIMAL if encloses else csv.QUOTE_NONE


def _describe(error: csv.Error) -> str:
    message = str(error)
    if "unexpected end of data" in message:
        return "this quote is never closed; data.reading.quoting=false reads quotes as text"
    if "expected after" in message:
        return f"{message} (double a quote inside a text, or data.reading.quoting=false)"
    if "new-line character" in message:
        return "a carriage return outside quotes"
    return message
