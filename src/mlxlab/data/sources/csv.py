"""CSV: each block is parsed by pyarrow; one that has a fault again by Python's csv, which knows the line.

pyarrow alone would not do: its errors name no line, it has no position to resume from, and it takes a
stray quote for text without a word.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv

from mlxlab.data.sources.block import Block, Start
from mlxlab.data.sources.cells import text_of_values
from mlxlab.data.sources.files import ByteStream
from mlxlab.data.sources.messages import not_utf8, require_columns
from mlxlab.data.sources.text_files import MAX_RECORD, Fault, Parsed, seek_line
from mlxlab.errors import DataError

UNNAMED = "unnamed column "
DELIMITERS = ",;\t|"
MAX_COLUMNS = 10_000
QUOTE = ord('"')
NEWLINE = ord("\n")
RETURN = ord("\r")


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

    def seek_record(self, stream: ByteStream, begin: int, limit: int) -> None:
        seek_line(stream, begin, limit)

    def _read_header(self, stream: ByteStream) -> "Header":
        """Reads the first record, which may span lines."""
        is_quoting = self.quoting is not False
        data = stream.read_line(MAX_RECORD)
        while is_quoting and data.count(b'"') % 2 and len(data) <= MAX_RECORD:
            line = stream.read_line(MAX_RECORD)
            data += line
            if not line:
                break
        try:
            text = data.decode().rstrip("\r\n")
            unquoted = re.sub(r'"[^"]*"', "", text)
            delimiter = self.delimiter or max(DELIMITERS, key=unquoted.count)
            with _long_fields():
                fields = next(csv.reader([text], delimiter=delimiter, quoting=_quoting(is_quoting)))
        except UnicodeDecodeError as error:
            raise DataError(f"{stream.path}:1: {not_utf8(data[error.start])}") from None
        except (csv.Error, StopIteration):
            fields = []
        names = [name.strip() for name in fields]
        if not any(names) or len(names) > MAX_COLUMNS:
            expected = f"expected a header of 1 to {MAX_COLUMNS} names, and rows"
            raise DataError(f"{stream.path}:1: {expected}")
        names = [name or f"{UNNAMED}{number}" for number, name in enumerate(names, 1)]
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
        # It neither begins nor ends a field.
        delimiter = re.escape(header.delimiter.encode())
        self.stray_quote = re.compile(
            rb'"(?<=[^\n"' + delimiter + rb']")(?:"")*(?!["\r\n]|' + delimiter + rb"|\Z)"
        )

    def parse(self, data: bytes, start: Start, is_last: bool) -> Parsed:
        if is_last and data and not data.endswith(b"\n"):
            data += b"\n"  # The last line has no end.
        lines_before = start[1] or self.header.lines
        values = np.frombuffer(data, np.uint8)
        breaks = np.flatnonzero(values == NEWLINE)
        ends = breaks + 1
        is_suspect = False
        if self.encloses and b'"' in data:
            quotes = np.flatnonzero(values == QUOTE)
            ends = ends[np.searchsorted(quotes, breaks) % 2 == 0]
            is_suspect = self.refuses_lines or self.stray_quote.search(data) is not None
        used = int(ends[-1]) if len(ends) else 0
        if is_suspect or (is_last and used < len(data)):
            # The parity of quotes may not tell where records end.
            return self._parse_slowly(data, start, lines_before, is_last)
        if not used:
            return Parsed(Block(start, [], np.zeros(0, np.int64)), 0, 0, [])

        starts = np.concatenate([[0], ends[:-1]])
        sizes = ends - starts
        is_blank = (sizes == 1) | ((sizes == 2) & (values[starts] == RETURN))
        numbers = lines_before + 1 + np.searchsorted(breaks, starts)[~is_blank]
        batch = self._parse_quickly(data[:used])
        if batch is None or len(batch) != len(numbers):
            return self._parse_slowly(data, start, lines_before, is_last)
        lines_used = lines_before - start[1] + int(np.searchsorted(breaks, used))
        return Parsed(Block(start, batch, numbers), used, lines_used, [])

    def _parse_quickly(self, records: bytes) -> pa.RecordBatch | None:
        """The rows by pyarrow; None if it finds a fault, or a lone CR, which would end a row."""
        if records.count(b"\r") != records.count(b"\r\n"):
            return None
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

    def _parse_slowly(self, data: bytes, start: Start, lines_before: int, is_last: bool) -> Parsed:
        """Parses record by record, and names the line of those that are malformed."""
        lines = Lines(data)
        rows: list[list[str]] = []
        numbers: list[int] = []
        faults: list[Fault] = []
        used = 0
        with _long_fields():
            while used < len(lines.lines):
                row: list[str] = []
                message = ""
                try:
                    row = self._read_record(lines)
                except (csv.Error, ValueError) as error:
                    message = _describe(error)
                is_cut = not is_last and lines.index == len(lines.lines)
                if is_cut and (message or not data.endswith(b"\n")):
                    break  # The record goes on in the next block.
                number = lines_before + used + 1
                if message:
                    lines.index = used + 1  # A quote may not be closed where it should be.
                    faults.append(Fault(number, message))
                elif row:
                    rows.append(row)
                    numbers.append(number)
                used = lines.index
        arrays = [text_of_values([row[index] for row in rows]) for index in self.indices]
        batch = pa.RecordBatch.from_arrays(arrays, self.names)
        block = Block(start, batch, np.array(numbers, np.int64))
        num_bytes = sum(map(len, lines.lines[:used]))
        return Parsed(block, num_bytes, lines_before - start[1] + used, faults)

    def _read_record(self, lines: "Lines") -> list[str]:
        """The fields of the next record; raises csv.Error or ValueError if it is malformed."""
        first = lines.index
        quoting = _quoting(self.encloses)
        reader = csv.reader(lines, strict=True, delimiter=self.header.delimiter, quoting=quoting)
        row = next(reader, [])
        width = len(self.header.names)
        if row and len(row) != width:
            raise ValueError(f"a row of {len(row)} fields, expected {width} as in the header")
        num_lines = lines.index - first
        if self.refuses_lines and num_lines > 1:
            ways = "data.reading.quoting=false reads quotes as text, true joins the lines"
            raise ValueError(f"a quoted text of {num_lines} lines; {ways}")
        return row


class Lines:
    """The lines of some bytes as text, from any of them on; a lone CR does not end a line."""

    def __init__(self, data: bytes) -> None:
        self.lines = io.BytesIO(data).readlines()
        self.index = 0  # of the next one

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.index == len(self.lines):
            raise StopIteration
        self.index += 1
        return self.lines[self.index - 1].decode()


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


def _describe(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return not_utf8(error.object[error.start])
    message = str(error)
    if "unexpected end of data" in message:
        return "this quote is never closed; data.reading.quoting=false reads quotes as text"
    if "expected after" in message:
        return f"{message} (double a quote inside a text, or data.reading.quoting=false)"
    if "new-line character" in message:
        return "a carriage return outside quotes"
    return message
