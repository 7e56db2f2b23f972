"""JSON lines, and files that hold one JSON array of objects."""

import codecs
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from mlxlab.data.sources.block import keys_of
from mlxlab.data.sources.files import ByteStream
from mlxlab.data.sources.messages import describe_fault, require_columns, shorten
from mlxlab.data.sources.text_files import BLOCK_BYTES, Parsed, Skip, TextFormat, ignore, seek_line
from mlxlab.errors import DataError

BETWEEN = re.compile(r"[\[,\] \t\r\n]*")  # the objects of an array
FAULTS = (ValueError, RecursionError)  # malformed, too deep or wrongly encoded JSON


def json_format(is_lines: bool) -> TextFormat:
    """Objects, one a line or in an array; a key that some objects lack is missing there."""
    return TextFormat("json", partial(JsonParser, is_lines), seek_line if is_lines else None)


class JsonParser:
    """A `Parser`: an object a line, or the objects of one array, which may span lines."""

    def __init__(self, is_lines: bool, stream: ByteStream, columns: Sequence[str] | None) -> None:
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
                    skip(number, describe_fault(error))
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
        return DataError(f"{self.stream.path}:{lines + 1}: {describe_fault(error)}")


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
