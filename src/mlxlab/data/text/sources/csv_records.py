"""Parses CSV strictly (RFC 4180): quoted fields may span lines, every record is as long as the header.

The usual parsers guess instead: they accept rows of other lengths, NUL bytes, and quotes that open in the middle.
"""

import re

from mlxlab.data.text.sources.lines import Lines

DELIMITERS = ",;\t|"
MAX_SHOWN = 60  # characters of a header in a message
_QUOTED = re.compile(r'"([^"]*+(?:""[^"]*+)*+)"')
_QUOTED_END = re.compile(r'([^"]*+(?:""[^"]*+)*+)"')
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class MalformedRecord(ValueError):
    """A fault at a line and a column of a file, which count from 1.

    `is_whole`: where the record ends is certain, as it is not after a quote that is never closed.
    """

    def __init__(self, message: str, line: int, column: int = 1, *, is_whole: bool = False) -> None:
        super().__init__(message)
        self.line, self.column, self.is_whole = line, column, is_whole


class UndecodableRecord(MalformedRecord):
    """A byte that is not UTF-8, in a file that may have another encoding."""

    def __init__(self, byte: int, line: int, column: int) -> None:
        others = "data.reading.encoding=cp1252 (Windows) or latin-1 reads other encodings"
        super().__init__(f"byte 0x{byte:02x} is not UTF-8; {others}", line, column, is_whole=True)


class CsvRecords:
    """The records after the header; [] for a blank line. It can be continued after a ValueError.

    Args:
        delimiter: None takes the most frequent of comma, semicolon, tab and bar in the header.
        control: control characters are text; else they are refused.

    Raises:
        MalformedRecord: the header is empty, not UTF-8, names a column twice or not at all.
    """

    def __init__(self, lines: Lines, delimiter: str | None, control: bool = False) -> None:
        self.lines, self.control = lines, control
        self.delimiter = delimiter or ","
        self.first_line, self.width = (
            1,
            0,
        )  # the line on which the last record began; fields of a record
        self.line_end = b""
        self._fault: MalformedRecord | None = None  # the first one in the text of this record
        try:
            line = self._next_line()
        except StopIteration:
            raise MalformedRecord("the file is empty, expected a header and rows", 1) from None
        unquoted = re.sub(r'"[^"]*"?', "", line)
        if delimiter is None:
            self.delimiter = max(DELIMITERS, key=unquoted.count)  # the first of several
        self.header = [name.strip() for name in self._parse(line)]
        self._raise_fault()
        if len(self.header) == 1 and any(sign in unquoted for sign in DELIMITERS):
            got = f"one column {self.header[0][:MAX_SHOWN]!r}"
            expected = f"expected {self.delimiter!r} between names (data.reading.delimiter)"
            raise MalformedRecord(f"{got}, {expected}", 1)
        self._check_header()
        self.width = len(self.header)

    def __iter__(self) -> "CsvRecords":
        return self

    def __next__(self) -> list[str]:
        """Raises MalformedRecord for a malformed record, which is consumed."""
        self.lines.record_bytes, self.first_line, self._fault = 0, self.lines.line + 1, None
        line = self._next_line()
        if self._fault is None and (not line or line.isspace()):
            return []
        record = self._parse(line) if '"' in line else line.split(self.delimiter)
        self._raise_fault()
        if len(record) != self.width:
            got = f"a row of {len(record)} fields"
            expected = f"expected {self.width} as in the header"
            raise MalformedRecord(f"{got}, {expected}", self.first_line)
        return record

    def _check_header(self) -> None:
        header = self.header
        for index, name in enumerate(header):
            if not name.strip():
                raise MalformedRecord(f"column {index + 1} of {len(header)} has no name", 1)
            if name in header[:index]:
                first = header.index(name) + 1
                message = f"column {name[:MAX_SHOWN]!r} twice in the header (fields {first} and {index + 1})"
                raise MalformedRecord(message, 1)

    def _raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _next_line(self) -> str:
        """A line without its end. A fault in its text is raised once the record has been read."""
        data = next(self.lines)
        content = data.rstrip(b"\n").removesuffix(b"\r")
        self.line_end = data[len(content) :]
        try:
            line = content.decode()
        except UnicodeDecodeError as error:
            column = len(content[: error.start].decode()) + 1
            self._fault = self._fault or UndecodableRecord(
                data[error.start], self.lines.line, column
            )
            return content.decode(errors="replace")
        if not self.control and not line.isprintable() and (match := _CONTROL.search(line)):
            message = f"control character 0x{ord(match.group()):02x}, expected text"
            self._fault = self._fault or MalformedRecord(
                message, self.lines.line, match.start() + 1, is_whole=True
            )
        return line

    def _parse(self, line: str) -> list[str]:
        """The fields of the record that begins with `line`; takes further lines for a quoted field."""
        fields, start = [], 0
        while True:
            opened = (self.lines.line, start + 1)
            if line.startswith('"', start):
                if match := _QUOTED.match(line, start):
                    text, end = match[1], match.end()
                else:
                    text, line, end = self._parse_lines(line[start + 1 :], opened)
                text = text.replace('""', '"')
            else:
                end = line.find(self.delimiter, start)
                end = len(line) if end < 0 else end
                text = line[start:end]
                if '"' in text and self.delimiter != "\t":
                    message = "a quote inside a field that does not start with one (quote the field, double the quote)"
                    raise MalformedRecord(message, self.lines.line, start + text.index('"') + 1)
            fields.append(text)
            if end == len(line):
                return fields
            if line[end] != self.delimiter:
                raise self._unexpected(line[end], end + 1, opened)
            start = end + 1

    def _parse_lines(self, first: str, opened: tuple[int, int]) -> tuple[str, str, int]:
        """A quoted field that is not closed on its first line; its last line, and where it ends there."""
        parts = [first, self.line_end.decode()]
        while True:
            try:
                line = self._next_line()
            except StopIteration:
                raise MalformedRecord("this quote is never closed", *opened) from None
            except ValueError as error:
                raise MalformedRecord(str(error), *opened) from None
            if match := _QUOTED_END.match(line):
                return "".join([*parts, match[1]]), line, match.end()
            parts += [line, self.line_end.decode()]

    def _unexpected(self, got: str, column: int, opened: tuple[int, int]) -> MalformedRecord:
        line = self.lines.line
        if line > opened[0]:
            message = f"this quoted field ends at {line}:{column} with {got!r} after it; is its closing quote missing?"
            return MalformedRecord(message, *opened)
        expected = f"{self.delimiter!r} expected after a closing quote, got {got!r} (double a quote inside a field)"
        return MalformedRecord(expected, line, column)
