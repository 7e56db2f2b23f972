"""Parses small CSV files strictly (RFC 4180, UTF-8): every row as long as the header, every error with its position.

The usual readers guess instead: they accept torn rows, NUL bytes, duplicate columns and fields of 64 MB silently.
"""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from mlxlab.data.input_files import MAX_BYTES, SIGNATURES
from mlxlab.errors import DataError

MAX_FIELD = 1000  # characters
_FIELD = re.compile(r'"[^"]*+(?:""[^"]*+)*+"|[^",\n]*+')
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Field(NamedTuple):
    """A field and its position: line and column of its first character, from 1."""

    text: str
    line: int
    column: int


def parse_csv(data: bytes, path: str | os.PathLike) -> Iterator[list[Field]]:
    """Yields the rows of the CSV file `path` that holds `data`, the header first.

    A quoted field may span lines. Line breaks are LF, CR LF or CR, all read as LF; blank lines at the end are ignored.

    Raises:
        DataError: with file:line:column and what was expected.
    """
    name = os.fspath(path)
    text = _decode(data[:MAX_BYTES], name).replace("\r\n", "\n").replace("\r", "\n")
    content = text.rstrip()
    if not content:
        raise DataError(f"{name}:1:1: the file is empty, expected a header and rows")
    if len(data) > MAX_BYTES and max(map(len, text.split("\n"))) < MAX_BYTES // 100:  # else one field is huge
        raise DataError(f"{name}:{text.count(chr(10)) + 1}:1: the file is longer than {MAX_BYTES} bytes")
    end = text.find("\n", len(content))
    scanner, width = _Scanner(text if end < 0 else text[:end], name), 0
    while not scanner.at_end:
        row = scanner.next_row()
        if width and len(row) != width:
            last = row[min(len(row), width + 1) - 1]
            expected = f"a row of {len(row)} fields, expected {width} as in the header"
            raise DataError(f"{name}:{last.line}:{last.column}: {expected}")
        width = len(row)
        yield row


class _Scanner:
    """Reads fields one after the other."""

    def __init__(self, text: str, name: str) -> None:
        self.text, self.name = text, name
        self.position, self.line, self._line_start = 0, 1, 0

    @property
    def at_end(self) -> bool:
        return self.position > len(self.text)

    def next_row(self) -> list[Field]:
        row = [self._next_field()]
        while self._skip_separator() == ",":
            row.append(self._next_field())
        return row

    def _next_field(self) -> Field:
        match = _FIELD.match(self.text, self.position)
        assert match is not None  # the second alternative matches the empty string
        raw, start, line, column = match.group(), self.position, self.line, self.position - self._line_start + 1
        if len(raw) > MAX_FIELD:
            raise DataError(f"{self.name}:{line}:{column}: a field of {len(raw)} characters, expected <= {MAX_FIELD}")
        self.position = match.end()
        if "\n" in raw:
            self.line += raw.count("\n")
            self._line_start = start + raw.rindex("\n") + 1
        if self.text[self.position : self.position + 1] not in ("", ",", "\n"):
            self._refuse(raw, line, column)
        return Field(raw[1:-1].replace('""', '"') if raw[:1] == '"' else raw, line, column)

    def _skip_separator(self) -> str:
        """The comma or line break after a field; empty at the end of the text."""
        separator = self.text[self.position : self.position + 1]
        self.position += 1
        if separator == "\n":
            self.line, self._line_start = self.line + 1, self.position
        return separator

    def _refuse(self, raw: str, line: int, column: int) -> NoReturn:
        """Raises the error for a field that is followed by something else than a comma or a line break."""
        here, character = f"{self.line}:{self.position - self._line_start + 1}", self.text[self.position]
        if raw[:1] == '"' and self.line > line:
            closed = f"this quoted field ends at {here} with {character!r} after it; is its closing quote missing?"
            raise DataError(f"{self.name}:{line}:{column}: {closed}")
        if raw[:1] == '"':
            message = f"{character!r} after a closing quote, expected ',' (a quote inside a field is doubled)"
        elif raw:
            message = "a quote inside a field that does not start with one"
        elif len(self.text) - self.position > MAX_FIELD:
            message = f"a field of more than {MAX_FIELD} characters: its quote is never closed"
        else:
            message = "this quote is never closed"
        raise DataError(f"{self.name}:{here}: {message}")


def _decode(data: bytes, name: str) -> str:
    for signature, description in SIGNATURES.items():
        if data.startswith(signature):
            raise DataError(f"{name}:1:1: this is {description}; expected a CSV file in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and len(data) == MAX_BYTES:
            return _decode(data[: error.start], name)
        position = _end_position(data[: error.start].decode("utf-8", "replace"))
        raise DataError(f"{name}:{position}: byte 0x{data[error.start]:02x} is not UTF-8") from None
    if match := _CONTROL.search(text):
        position = _end_position(text[: match.start()])
        raise DataError(f"{name}:{position}: control character 0x{ord(match.group()):02x}, expected text")
    if text.lstrip()[:1] == "<":
        raise DataError(f"{name}:1:1: this is an HTML or XML page, expected a CSV file")
    return text


def _end_position(text: str) -> str:
    """`line:column` of the character that follows `text`."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return f"{len(lines)}:{len(lines[-1]) + 1}"
