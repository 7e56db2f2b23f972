"""JSON lines, and files that hold one JSON array of objects."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mlxlab.data.sources.block import Block, Start
from mlxlab.data.sources.files import ByteStream
from mlxlab.data.sources.messages import require_columns, shorten
from mlxlab.data.sources.text_files import (
    BLOCK_BYTES,
    Fault,
    MalformedFileError,
    Parsed,
    seek_line,
)

BETWEEN = "[,] \t\r\n"  # the signs between the objects of an array


@dataclass(frozen=True)
class Json:
    """Objects, one a line or in an array; a key that some objects lack is missing there."""

    lines: bool = True
    settings = "json"
    is_prose = False

    @property
    def is_splittable(self) -> bool:
        return self.lines

    def columns(self, stream: ByteStream) -> Sequence[str]:
        """The keys of the first block."""
        parser = self.open(stream, None)
        data = stream.read(BLOCK_BYTES)
        is_last = len(data) < BLOCK_BYTES
        try:
            parsed = parser.parse(data, (stream.begin, 0), is_last)
        except MalformedFileError:  # It is reported when the rows are read.
            return []
        return list(_keys(parsed.block.records()))

    def open(self, stream: ByteStream, columns: Sequence[str] | None) -> "JsonLines | JsonArray":
        if not self.lines and stream.peek().lstrip().startswith(b"["):
            return JsonArray(columns or (), stream.path)
        return JsonLines(columns or (), stream.path)

    def seek_record(self, stream: ByteStream, begin: int) -> None:
        seek_line(stream, begin)


class JsonLines:
    """A `Parser`: an object a line."""

    def __init__(self, columns: Sequence[str], path: str) -> None:
        self.unseen = list(columns)
        self.path = path

    def parse(self, data: bytes, start: Start, is_last: bool) -> Parsed:
        used = len(data) if is_last else data.rfind(b"\n") + 1
        rows: list[dict[str, object]] = []
        numbers: list[int] = []
        faults: list[Fault] = []
        lines = data[:used].split(b"\n")
        for number, line in enumerate(lines, start[1] + 1):
            try:
                row = parse_object(line)
            except ValueError as error:
                faults.append(Fault(number, str(error)))
            else:
                if row is not None:
                    rows.append(row)
                    numbers.append(number)
        self.unseen = _require_keys(self.unseen, rows, self.path)
        block = Block(start, rows, np.array(numbers, np.int64))
        return Parsed(block, used, len(lines) - 1, faults)


class JsonArray:
    """A `Parser`: the objects of one array, which may span lines."""

    def __init__(self, columns: Sequence[str], path: str) -> None:
        self.unseen = list(columns)
        self.path = path
        self.decoder = json.JSONDecoder()

    def parse(self, data: bytes, start: Start, is_last: bool) -> Parsed:
        text = _decode(data, start, is_last)
        rows: list[dict[str, object]] = []
        numbers: list[int] = []
        faults: list[Fault] = []
        used = 0
        line = start[1] + 1
        while True:
            begin = _skip(text, used, BETWEEN)
            line += text.count("\n", used, begin)
            used = begin
            if begin == len(text):
                break
            try:
                row, end = self.decoder.raw_decode(text, begin)
            except json.JSONDecodeError as error:
                if not is_last:  # The object may go on in the next block.
                    break
                number = line + text.count("\n", begin, error.pos)
                raise MalformedFileError(number, _not_json(error)) from None
            except (RecursionError, ValueError) as error:
                message = f"not JSON that can be read: {type(error).__name__}"
                raise MalformedFileError(line, message) from None
            if isinstance(row, dict):
                rows.append(row)
                numbers.append(line)
            else:
                if not is_last and end == len(text):  # A number may go on in the next block.
                    break
                faults.append(Fault(line, _no_object(row)))
            line += text.count("\n", begin, end)
            used = end
        self.unseen = _require_keys(self.unseen, rows, self.path)
        block = Block(start, rows, np.array(numbers, np.int64))
        return Parsed(block, len(text[:used].encode()), line - start[1] - 1, faults)


def parse_object(line: bytes) -> dict[str, object] | None:
    """The object of a line, None for a blank one; raises ValueError for anything else."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte 0x{line[error.start]:02x} is not UTF-8") from None
    if not text or text.isspace():
        return None
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(_not_json(error)) from None
    except (RecursionError, ValueError) as error:
        raise ValueError(f"not JSON that can be read: {type(error).__name__}") from None
    if not isinstance(row, dict):
        raise ValueError(_no_object(row))
    return row


def _decode(data: bytes, start: Start, is_last: bool) -> str:
    """The text, without a character at its end that continues in the next block."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        if not is_last and error.end == len(data) and error.reason == "unexpected end of data":
            return data[: error.start].decode()
        number = start[1] + 1 + data.count(b"\n", 0, error.start)
        message = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise MalformedFileError(number, message) from None


def _not_json(error: json.JSONDecodeError) -> str:
    return f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"


def _no_object(value: object) -> str:
    return f"{shorten(value)} is not an object"


def _require_keys(unseen: list[str], rows: list[dict[str, object]], path: str) -> list[str]:
    """Raises DataError if no object of the first block has one of the keys; those still unseen."""
    if not unseen or not rows:
        return unseen
    keys = _keys(rows)
    if not keys.keys() >= set(unseen):
        require_columns(unseen, list(keys), path)
    return []


def _keys(rows: list[dict[str, object]]) -> dict[str, None]:
    return dict.fromkeys(key for row in rows for key in row)


def _skip(text: str, position: int, characters: str) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position
