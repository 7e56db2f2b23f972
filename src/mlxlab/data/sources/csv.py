"""CSV, by Python's own parser, which is strict and knows the line of a fault."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

from mlxlab.data.sources.files import ByteStream
from mlxlab.data.sources.messages import describe_fault, require_columns
from mlxlab.data.sources.text_files import MAX_RECORD, Parsed, Skip, TextFormat
from mlxlab.errors import DataError

UNNAMED = (
    "unnamed column "  # how names begin of columns without one, as the index that pandas writes
)
DELIMITERS = ",;\t|"
MAX_COLUMNS = 10_000


def csv_format(delimiter: str | None, quoting: bool | None) -> TextFormat:
    """CSV files with a header.

    Args:
        delimiter: None takes the most frequent of comma, semicolon, tab and bar in the header.
        quoting: whether quotes enclose texts; without, they are text. None encloses, and refuses
            those that span several lines where the delimiter is a tab.
    """
    return TextFormat(f"csv:{delimiter}:{quoting}", partial(CsvParser, delimiter, quoting), None)


class CsvParser:
    """A `Parser`: the rows of one file, with some of its columns."""

    def __init__(
        self,
        delimiter: str | None,
        quoting: bool | None,
        stream: ByteStream,
        columns: Sequence[str] | None,
    ) -> None:
        csv.field_size_limit(MAX_RECORD)  # Python has one limit for all of the program.
        self.quoting: Literal[0, 3] = csv.QUOTE_NONE if quoting is False else csv.QUOTE_MINIMAL
        first_line = re.sub(rb'"[^"]*"', b"", stream.peek()).decode(errors="replace")
        first_line = first_line.partition("\n")[0]
        self.delimiter = delimiter or max(DELIMITERS, key=first_line.count)
        self.refuses_lines = quoting is None and self.delimiter == "\t"
        self.header = self._read_header(stream)
        names = self.header if columns is None else columns
        require_columns(names, self.header, stream.path)
        self.indices = {name: self.header.index(name) for name in names}

    def columns(self) -> Sequence[str]:
        return self.header

    def parse(self, data: bytes, lines: int, is_last: bool, skip: Skip) -> Parsed:
        if is_last and data and not data.endswith(b"\n"):
            data += b"\n"  # The last line has no end.
        parsed = Parsed(lines=lines or self.header_lines)
        stream = io.BytesIO(data)
        reader = self._reader(iter(stream.readline, b""), is_strict=True)
        while parsed.used < len(data):
            row: list[str] = []
            message = ""
            lines_before = reader.line_num
            try:
                # The reader takes as many lines as the record has; a lone CR does not end one.
                row = next(reader, [])
                message = self._fault(row, reader.line_num - lines_before)
            except (csv.Error, UnicodeDecodeError) as error:
                message = describe_fault(error)
            is_cut = not is_last and stream.tell() == len(data)
            if is_cut and (message or not data.endswith(b"\n")):
                break  # The record goes on in the next block.
            num_lines = reader.line_num - lines_before
            if message:
                skip(parsed.lines + 1, message)
                num_lines = 1  # A quote may not be closed where it should be.
                stream.seek(data.find(b"\n", parsed.used) + 1)
                reader = self._reader(iter(stream.readline, b""), is_strict=True)
            elif row:
                parsed.rows.append({name: row[at] for name, at in self.indices.items()})
                parsed.numbers.append(parsed.lines + 1)
            parsed.used = stream.tell()
            parsed.lines += num_lines
        return parsed

    def _fault(self, row: list[str], num_lines: int) -> str:
        """What is wrong with the fields of a record; "" if nothing is."""
        width = len(self.header)
        if row and len(row) != width:
            return f"a row of {len(row)} fields, expected {width} as in the header"
        if self.refuses_lines and num_lines > 1:
            ways = "data.reading.quoting=false reads quotes as text, true joins the lines"
            return f"a quoted text of {num_lines} lines; {ways}"
        return ""

    def _reader(self, lines: Iterator[bytes], is_strict: bool) -> Any:
        texts = map(bytes.decode, lines)
        return csv.reader(texts, strict=is_strict, delimiter=self.delimiter, quoting=self.quoting)

    def _read_header(self, stream: ByteStream) -> list[str]:
        lines = iter(partial(stream.read_line, MAX_RECORD), b"")
        reader = self._reader(lines, is_strict=False)
        try:
            names = [name.strip() for name in next(reader, [])]
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{stream.path}:1: {describe_fault(error)}") from None
        if not any(names) or len(names) > MAX_COLUMNS:
            raise DataError(f"{stream.path}:1: expected 1 to {MAX_COLUMNS} names of columns")
        self.header_lines = reader.line_num
        return [name or f"{UNNAMED}{number}" for number, name in enumerate(names, 1)]
