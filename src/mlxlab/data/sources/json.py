"""JSON lines, and files that hold one JSON array of objects."""

import codecs
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from mlxlab.data.sources.block import Block, Start
from mlxlab.data.sources.files import ByteStream
from mlxlab.data.sources.messages import not_utf8, require_columns, shorten
from mlxlab.data.sources.text_files import BLOCK_BYTES, Fault, Parsed, seek_line
from mlxlab.errors import DataError

BETWEEN = re.compile(r"[\[,\] \t\r\n]*")  # the objects of an array
FAULTS = (ValueError, RecursionError)  # of JSON, and of its encoding


@dataclass(frozen=True)
class Json:
    """Objects, one a line or in an array; a key that some objects lack is missing there."""

    lines: bool = True
    settings = "json"

    @property
    def is_splittable(self) -> bool:
        return self.lines

    def columns(self, stream: ByteStream) -> Sequence[str]:
        """The keys of the first block."""
        parser = self.open(stream, None)
        data = stream.read(BLOCK_BYTES)
        try:
            parsed = parser.parse(data, (stream.begin, 0), len(data) < BLOCK_BYTES)
        except DataError:  # It is reported when the rows are read.
            return []
        return _keys(parsed.block.records())

    def open(self, stream: ByteStream, columns: Sequence[str] | None) -> "JsonParser":
        is_array = not self.lines and stream.peek().lstrip().startswith(b"[")
        return JsonParser(columns or (), stream.path, is_array)

    def seek_record(self, stream: ByteStream, begin: int, limit: int) -> None:
        seek_line(stream, begin, limit)


@dataclass
class Objects:
    """The objects among some values of JSON, and faults instead of the others."""

    rows: list[dict[str, object]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # the line of each row
    faults: list[Fault] = field(default_factory=list)

    def add(self, value: object, number: int) -> None:
        if isinstance(value, dict):
            self.rows.append(value)
            self.numbers.append(number)
        else:
            self.faults.append(Fault(number, f"{shorten(value)} is not an object"))

    def parsed(self, start: Start, used: int, lines: int) -> Parsed:
        block = Block(start, self.rows, np.array(self.numbers, np.int64))
        return Parsed(block, used, lines, self.faults)


class JsonParser:
    """A `Parser`: an object a line, or the objects of one array, which may span lines."""

    def __init__(self, columns: Sequence[str], path: str, is_array: bool) -> None:
        self.unseen = columns
        self.path = path
        self.is_array = is_array
        self.decode = json.JSONDecoder().raw_decode

    def parse(self, data: bytes, start: Start, is_last: bool) -> Parsed:
        parse = self._parse_array if self.is_array else self._parse_lines
        parsed = parse(data, start, is_last)
        rows = parsed.block.records()
        if rows:
            if not all(any(name in row for row in rows) for name in self.unseen):
                require_columns(self.unseen, _keys(rows), self.path)
            self.unseen = ()
        return parsed

    def _parse_lines(self, data: bytes, start: Start, is_last: bool) -> Parsed:
        used = len(data) if is_last else data.rfind(b"\n") + 1
        objects = Objects()
        lines = _decode_lines(data[:used], start[1] + 1, objects.faults)
        for number, line in enumerate(lines, start[1] + 1):
            text = line.strip()
            if not text:
                continue
            try:  # `json.loads` does the same in twice the time.
                value, end = self.decode(text)
                if end < len(text):
                    raise json.JSONDecodeError("Extra data", text, end)
            except FAULTS as error:
                objects.faults.append(Fault(number, _describe(error)))
            else:
                objects.add(value, number)
        objects.faults.sort()
        return objects.parsed(start, used, len(lines) - 1)

    def _parse_array(self, data: bytes, start: Start, is_last: bool) -> Parsed:
        line = start[1] + 1
        try:  # A character may go on in the next block.
            text = codecs.getincrementaldecoder("utf-8")().decode(data, is_last)
        except UnicodeDecodeError as error:
            line += data.count(b"\n", 0, error.start)
            raise self._fatal(line, error) from None
        objects = Objects()
        used = 0
        while True:
            between = BETWEEN.match(text, used)
            begin = between.end() if between else used
            line += text.count("\n", used, begin)
            used = begin
            if begin == len(text):
                break
            try:
                value, end = self.decode(text, begin)
            except FAULTS as error:
                if not is_last and isinstance(error, json.JSONDecodeError):
                    break  # The object may go on in the next block.
                line += text.count("\n", begin, getattr(error, "pos", begin))
                raise self._fatal(line, error) from None
            if not is_last and end == len(text) and not isinstance(value, dict):
                break  # A number may go on in the next block.
            objects.add(value, line)
            line += text.count("\n", begin, end)
            used = end
        return objects.parsed(start, len(text[:used].encode()), line - start[1] - 1)

    def _fatal(self, line: int, error: Exception) -> DataError:
        """A fault after which no object can be found."""
        return DataError(f"{self.path}:{line}: {_describe(error)}")


def _decode_lines(records: bytes, first: int, faults: list[Fault]) -> list[str]:
    """The lines as text; empty instead of those that are not UTF-8, which are faults."""
    with suppress(UnicodeDecodeError):
        return records.decode().split("\n")
    lines: list[str] = []
    for number, line in enumerate(records.split(b"\n"), first):
        text = ""
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            faults.append(Fault(number, _describe(error)))
        lines.append(text)
    return lines


def _describe(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return not_utf8(error.object[error.start])
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
    return f"not JSON that can be read: {type(error).__name__}"


def _keys(rows: Sequence[dict[str, object]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))
