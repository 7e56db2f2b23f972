"""Reads small CSV files strictly: UTF-8, one line a row, every row as long as the header; a fault names its place.

Why not the usual readers: they guess. A torn row, a NUL, a doubled column or a 64 MB field is read in silence.
"""

import os
import re
import stat
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from mlxlab.errors import DataError, InputNotFoundError

MAX_BYTES = 16 * 2**20
MAX_FIELD = 1000  # characters
FIELD = re.compile(r'"[^"]*+(?:""[^"]*+)*+"|[^",]*+')
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
SIGNATURES = {
    b"\x89PNG": "a PNG image",
    b"\x1f\x8b": "gzip data: unpack it first",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"\x28\xb5\x2f\xfd": "zstd data: unpack it first",
    b"%PDF": "a PDF document",
    b"PAR1": "a parquet file",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}


class Field(NamedTuple):
    """A field and where it starts, counted from 1, in characters."""

    text: str
    line: int
    column: int


def read_regular(path: str | os.PathLike, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file, at most `limit` + 1 of them.

    Never waits: pipes, devices and folders are refused before they are opened.

    Raises:
        InputNotFoundError: there is no such file, or it is something else, or may not be read.
    """
    name = os.fspath(path)
    if name in ("", "-"):
        raise InputNotFoundError(f"{name!r} is not a file: standard input cannot be read as a data set, give a path")
    try:
        kind = os.stat(name).st_mode
        if not stat.S_ISREG(kind):
            raise InputNotFoundError(f"{name} is {describe_file_type(kind)}, expected a regular file")
        with open(name, "rb") as file:
            return file.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputNotFoundError(f"{name!r}: {reason}{nearest_file(Path(name))}") from None


def parse_csv(data: bytes, path: str | os.PathLike) -> Iterator[list[Field]]:
    """Yields the rows of the CSV file `path` that holds `data`, the header first, with the positions of its fields.

    Raises:
        DataError: with file:line:column and what was expected.
    """
    lines = _lines(_decode(data[:MAX_BYTES], os.fspath(path)))
    if not lines:
        raise DataError(f"{path}:1:1: the file is empty, expected a header and rows")
    if len(data) > MAX_BYTES:
        _refuse_huge(lines, path)
    width = 0
    for number, line in enumerate(lines, 1):
        row = split_row(line, number, path)
        if width and len(row) != width:
            last = row[min(len(row), width + 1) - 1]
            raise DataError(
                f"{path}:{number}:{last.column}: a row of {len(row)} fields, expected {width} as in the header"
            )
        width = len(row)
        yield row


def split_row(line: str, number: int, path: str | os.PathLike) -> list[Field]:
    """Cuts one line into fields: RFC 4180 without line breaks inside quotes."""
    fields, place = [], 0
    while True:
        match = FIELD.match(line, place)
        assert match is not None  # the second alternative matches the empty string
        text, end = match.group(), match.end()
        if end - place > MAX_FIELD:
            raise DataError(
                f"{path}:{number}:{place + 1}: a field of {end - place} characters, expected <= {MAX_FIELD}"
            )
        if end < len(line) and line[end] != ",":
            raise DataError(f"{path}:{number}:{end + 1}: {_quote_fault(line, place, end)}")
        fields.append(Field(text[1:-1].replace('""', '"') if text[:1] == '"' else text, number, place + 1))
        if end == len(line):
            return fields
        place = end + 1


def _refuse_huge(lines: list[str], path: str | os.PathLike) -> None:
    """Names the longest line's huge field, if there is one, else the place where the file should have ended."""
    number, longest = max(enumerate(lines, 1), key=lambda item: len(item[1]))
    if len(longest) > MAX_BYTES // 100:
        split_row(longest, number, path)
    raise DataError(f"{path}:{len(lines)}:1: the file is longer than {MAX_BYTES} bytes")


def _decode(data: bytes, name: str) -> str:
    for signature, what in SIGNATURES.items():
        if data.startswith(signature):
            raise DataError(f"{name}:1:1: this is {what}; expected a CSV file in UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data" and len(data) == MAX_BYTES:
            return _decode(data[: error.start], name)
        place = _place(data[: error.start].decode("utf-8", "replace"))
        raise DataError(f"{name}:{place}: byte 0x{data[error.start]:02x} is not UTF-8") from None
    if match := CONTROL.search(text):
        place = _place(text[: match.start()])
        raise DataError(f"{name}:{place}: a control character (0x{ord(match.group()):02x}), expected text")
    if text.lstrip()[:1] == "<":
        raise DataError(f"{name}:1:1: this is an HTML or XML page, expected a CSV file")
    return text


def _lines(text: str) -> list[str]:
    """Lines by LF, CR LF or CR alone; empty ones at the end do not count."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def _place(before: str) -> str:
    lines = before.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return f"{len(lines)}:{len(lines[-1]) + 1}"


def _quote_fault(line: str, place: int, end: int) -> str:
    if line[place] == '"' and end > place:
        return f"{line[end]!r} after a closing quote, expected ',' (a quote inside a field is doubled)"
    if line[end] == '"' and end == place:
        if len(line) - end > MAX_FIELD:
            return f"a field of more than {MAX_FIELD} characters"
        return "this quote is never closed on its line"
    return "a quote inside a field that does not start with one"


def describe_file_type(mode: int) -> str:
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for test, name in kinds.items() if test(mode)), "a device")


def nearest_file(path: Path) -> str:
    """Names a file of the same folder that may have been meant."""
    try:
        found = get_close_matches(path.name, [entry.name for entry in os.scandir(path.parent)], n=1)
    except (OSError, ValueError):
        return ""
    return f" (did you mean {path.parent / found[0]}?)" if found and found[0] != path.name else ""
