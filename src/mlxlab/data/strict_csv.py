"""Parses small CSV files strictly (RFC 4180, UTF-8): every row as long as the header, every error with its position.

The usual readers guess instead: they accept torn rows, NUL bytes, duplicate columns and fields of 64 MB silently.
"""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from mlxlab.data.input_files import MAX_BYTES, SIGNATURES
from mlxlab.errors import DataError

MAX_FIELD = 1000  # characters
_FIELD = re.compile(r'"[^"]*+(?:""[^"]*+)*+"|[^",\n]*+')
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Field(NamedTuple):
    """A field, and the index of its first character in the text of the file; line and column count from 1."""

    text: str
    file_text: str
    offset: int

    @property
    def line(self) -> int:
        return self.file_text.count("\n", 0, self.offset) + 1

    @property
    def column(self) -> int:
        return self.offset - self.file_text.rfind("\n", 0, self.offset)


def parse_csv(data: bytes, path: str | os.PathLike[str]) -> Iterator[list[Field]]:
    """Yields the rows of the CSV file `path` that holds `data`, the header first.

    A quoted field may span lines. Line breaks are LF, CR LF or CR, all read as LF; blank lines at the end are ignored.

    Raises:
        DataError: with file:line:column and what was expected.
    """
    name = os.fspath(path)
    text = _decode(data[:MAX_BYTES], name)
    content = text.rstrip()
    if not content:
        raise DataError(f"{name}:1:1: the file is empty, expected a header and rows")
    if (
        len(data) > MAX_BYTES and max(map(len, text.split("\n"))) < MAX_BYTES // 100
    ):  # else one field is huge
        raise DataError(
            f"{name}:{text.count(chr(10)) + 1}:1: the file is longer than {MAX_BYTES} bytes"
        )
    end = text.find("\n", len(content))
    text = text if end < 0 else text[:end]
    offset, width = 0, 0
    row: list[Field] = []
    while offset <= len(text):
        match = _FIELD.match(text, offset)
        assert match is not None  # the second alternative matches the empty string
        raw, separator = match.group(), text[match.end() : match.end() + 1]
        if separator not in ("", ",", "\n") or len(raw) > MAX_FIELD:
            raise DataError(
                f"{name}:{_fault(Field(raw, text, offset), Field(separator, text, match.end()))}"
            )
        row.append(Field(raw[1:-1].replace('""', '"') if raw[:1] == '"' else raw, text, offset))
        offset = match.end() + 1
        if separator != ",":
            if width and len(row) != width:
                last = row[min(len(row), width + 1) - 1]
                expected = f"a row of {len(row)} fields, expected {width} as in the header"
                raise DataError(f"{name}:{last.line}:{last.column}: {expected}")
            yield row
            width, row = len(row), []


def _fault(field: Field, after: Field) -> str:
    """Position and description of a field that is too long, or not followed by a comma or a line break."""
    start, end = f"{field.line}:{field.column}", f"{after.line}:{after.column}"
    if len(field.text) > MAX_FIELD:
        return f"{start}: a field of {len(field.text)} characters, expected <= {MAX_FIELD}"
    if field.text[:1] == '"' and after.line > field.line:
        return f"{start}: this quoted field ends at {end} with {after.text!r} after it; is its closing quote missing?"
    if field.text[:1] == '"':
        return f"{end}: {after.text!r} after a closing quote, expected ',' (a quote inside a field is doubled)"
    if field.text:
        return f"{end}: a quote inside a field that does not start with one"
    if len(after.file_text) - after.offset > MAX_FIELD:
        return f"{end}: a field of more than {MAX_FIELD} characters: its quote is never closed"
    return f"{end}: this quote is never closed"


def _decode(data: bytes, name: str) -> str:
    """The text with LF for every line break."""
    for signature, description in SIGNATURES.items():
        if data.startswith(signature):
            raise DataError(f"{name}:1:1: this is {description}; expected a CSV file in UTF-8")
    try:
        text, fault = data.decode("utf-8-sig"), ""
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and len(data) == MAX_BYTES:
            return _decode(data[: error.start], name)
        content = error.object  # without the byte order mark
        text, fault = (
            content[: error.start].decode(),
            f"byte 0x{content[error.start]:02x} is not UTF-8",
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    end = Field("", text, len(text))
    if not fault and (match := _CONTROL.search(text)):
        end = Field("", text, match.start())
        fault = f"control character 0x{ord(match.group()):02x}, expected text"
    if fault:
        raise DataError(f"{name}:{end.line}:{end.column}: {fault}")
    if text.lstrip()[:1] == "<":
        raise DataError(f"{name}:1:1: this is an HTML or XML page, expected a CSV file")
    return text
