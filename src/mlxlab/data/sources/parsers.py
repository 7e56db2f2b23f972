"""Parsers of text files: CSV, JSON lines or one JSON array, and plain text."""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from mlxlab.data.sources.block import Columns, keys_of
from mlxlab.data.sources.files import ByteStream
from mlxlab.data.sources.messages import require_columns, shorten
from mlxlab.data.sources.text_files import (
    BLOCK_BYTES,
    MAX_RECORD,
    Parsed,
    Skip,
    TextFormat,
    ignore,
    seek_line,
)
from mlxlab.errors import DataError

# How names begin of columns without one, as the index that pandas writes.
UNNAMED = "unnamed column "
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
        columns: Columns,
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
                message = _describe_fault(error)
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
            raise DataError(f"{stream.path}:1: {_describe_fault(error)}") from None
        if not any(names) or len(names) > MAX_COLUMNS:
            raise DataError(f"{stream.path}:1: expected 1 to {MAX_COLUMNS} names of columns")
        self.header_lines = reader.line_num
        return [name or f"{UNNAMED}{number}" for number, name in enumerate(names, 1)]


BETWEEN = re.compile(r"[\[,\] \t\r\n]*")  # the objects of an array
FAULTS = (ValueError, RecursionError)  # malformed, too deep or wrongly encoded JSON


def json_format(is_lines: bool) -> TextFormat:
    """Objects, one a line or in an array; a key that some objects lack is missing there."""
    return TextFormat("json", partial(JsonParser, is_lines), seek_line if is_lines else None)


class JsonParser:
    """A `Parser`: an object a line, or the objects of one array, which may span lines."""

    def __init__(self, is_lines: bool, stream: ByteStream, columns: Columns) -> None:
        self.stream = stream
        self.unseen = columns or ()
        self.is_lines = is_lines or not stream.peek().lstrip().startswith(b"[")
        self.decode = json.JSONDecoder().raw_decode

    def columns(self) -> Sequence[str]:
        data = self.stream.read(BLOCK_BYTES)
        with suppress(DataError):  # It is reported when the rows are read.
            return keys_of(self.parse(data, 0, len(data) < BLOCK_BYTES, ignore).rows)
        return []

    def parse(self, data: bytes, lines: int, is_last: bool, skip: Skip) -> Parsed:
        parse = self._parse_lines if self.is_lines else self._parse_array
        parsed = parse(data, lines, is_last, skip)
        if parsed.rows:
            if not all(any(name in row for row in parsed.rows) for name in self.unseen):
                require_columns(self.unseen, keys_of(parsed.rows), self.stream.path)
            self.unseen = ()
        return parsed

    def _parse_lines(self, data: bytes, lines: int, is_last: bool, skip: Skip) -> Parsed:
        used = len(data) if is_last else data.rfind(b"\n") + 1
        parsed = Parsed(used=used, lines=lines)
        for number, line in enumerate(data[:used].split(b"\n"), lines + 1):
            parsed.lines = number - 1  # What follows the last line break is no line yet.
            if line and not line.isspace():
                try:
                    value = json.loads(line.decode())
                except FAULTS as error:
                    skip(number, _describe_fault(error))
                else:
                    _add(value, number, parsed, skip)
        return parsed

    def _parse_array(self, data: bytes, lines: int, is_last: bool, skip: Skip) -> Parsed:
        try:  # A character may go on in the next block.
            text = codecs.getincrementaldecoder("utf-8")().decode(data, is_last)
        except UnicodeDecodeError as error:
            lines += data.count(b"\n", 0, error.start)
            raise self._fatal(lines, error) from None
        begin = _skip_separators(text, 0)
        parsed = Parsed(lines=lines + text.count("\n", 0, begin))
        while begin < len(text):
            try:
                value, end = self.decode(text, begin)
            except FAULTS as error:
                if not is_last and isinstance(error, json.JSONDecodeError):
                    break  # The object may go on in the next block.
                lines = parsed.lines + text.count("\n", begin, getattr(error, "pos", begin))
                raise self._fatal(lines, error) from None
            following = _skip_separators(text, end)
            if following == len(text) and not is_last and not text.endswith("\n"):
                break  # What separates it from the next object may go on in the next block.
            _add(value, parsed.lines + 1, parsed, skip)
            # Objects on one line are numbered as if each had a line: a number is the id of a row.
            parsed.lines += max(1, text.count("\n", begin, following))
            begin = following
        parsed.used = len(text[:begin].encode())
        return parsed

    def _fatal(self, lines: int, error: Exception) -> DataError:
        """A fault after which no object can be found."""
        return DataError(f"{self.stream.path}:{lines + 1}: {_describe_fault(error)}")


def _add(value: object, number: int, parsed: Parsed, skip: Skip) -> None:
    """Adds a value as a row, or skips it if it is no object."""
    if isinstance(value, dict):
        parsed.rows.append(value)
        parsed.numbers.append(number)
    else:
        skip(number, f"{shorten(value)} is not an object")


def _skip_separators(text: str, position: int) -> int:
    """Where the next object of an array begins."""
    separators = BETWEEN.match(text, position)
    assert separators is not None, "it matches nothing, too"
    return separators.end()


DocumentUnit = Literal["file", "line"]
MIN_PIECE = 2**12  # bytes of a piece of a file
MAX_PIECE = 2**16
MIN_PIECES = 512  # Fewer than FEW_FILES files need them, to have something to shuffle.
FEW_FILES = 32
MAX_BOUNDARY_BYTES = 2**12  # searched for the end of a line, a word or a character


def txt_format(unit: DocumentUnit, sizes: Sequence[int]) -> TextFormat:
    """Documents of text files of these sizes, in whatever column is asked for."""
    piece = MAX_PIECE
    if len(sizes) < FEW_FILES:
        piece = 1 << (sum(sizes) // MIN_PIECES).bit_length()
        piece = min(max(piece, MIN_PIECE), MAX_PIECE)
    seek = seek_line if unit == "line" else _seek_piece
    return TextFormat(f"txt:{unit}:{piece}", partial(TxtParser, unit, piece), seek)


@dataclass(frozen=True)
class TxtParser:
    """A `Parser`."""

    unit: DocumentUnit
    piece: int
    stream: ByteStream
    names: Columns

    def columns(self) -> Sequence[str]:
        return []

    def parse(self, data: bytes, lines: int, is_last: bool, skip: Skip) -> Parsed:
        parsed = Parsed(lines=lines)
        column = self.names[0] if self.names else "text"
        breaks = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n"))
        ends = self._ends(data, breaks)
        if is_last and (not ends or ends[-1] < len(data)):
            ends.append(len(data))
        # A piece without a line break is numbered as a line: a number is the id of a document.
        sizes = np.maximum(np.diff(np.searchsorted(breaks, [0, *ends])), 1)
        for end, num_lines in zip(ends, sizes.tolist(), strict=True):
            record = data[parsed.used : end]
            number = parsed.lines + 1
            try:
                text = record.decode()
            except UnicodeDecodeError as error:
                number += record.count(b"\n", 0, error.start)
                skip(number, _describe_fault(error))
                text = ""
            if self.unit == "line":
                text = text.rstrip("\r\n")
            if text and not text.isspace():
                parsed.rows.append({column: text})
                parsed.numbers.append(number)
            parsed.lines += num_lines
            parsed.used = end
        return parsed

    def _ends(self, data: bytes, breaks: np.ndarray) -> list[int]:
        """The bytes behind each complete record."""
        if self.unit == "line":
            return (breaks + 1).tolist()
        ends = []
        end = 0
        while len(data) - end > self.piece + MAX_BOUNDARY_BYTES:
            end += self.piece
            end += _boundary(data[end : end + MAX_BOUNDARY_BYTES])
            ends.append(end)
        return ends


def _boundary(data: bytes) -> int:
    """Where these bytes can be split: behind a line, else a word, else before a character."""
    for pattern in (rb"\n", rb"\s", rb"(?=[^\x80-\xbf])"):
        match = re.search(pattern, data)
        if match:
            return match.end()
    return 0


def _seek_piece(stream: ByteStream, begin: int) -> None:
    """Moves to the first byte at which a file can be split."""
    stream.seek(begin)
    stream.seek(begin + _boundary(stream.read(MAX_BOUNDARY_BYTES)))


def _describe_fault(error: Exception) -> str:
    """Why a record of a text file cannot be read."""
    message = str(error)
    if isinstance(error, UnicodeDecodeError):
        ways = "data.reading.encoding=cp1252 (Windows) or latin-1 reads other encodings"
        return f"byte 0x{error.object[error.start]:02x} is not UTF-8; {ways}"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
    if not isinstance(error, csv.Error):
        return f"not JSON that can be read: {type(error).__name__}"
    if "unexpected end of data" in message:
        return "this quote is never closed; data.reading.quoting=false reads quotes as text"
    if "new-line character" in message:
        return "a carriage return outside quotes"
    return message
