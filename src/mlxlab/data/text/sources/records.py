"""Records of text: finds them from any offset of a file without reading what precedes it, and parses them.

A record belongs to the byte range in which it begins (a fixed-size piece: in which its nominal start lies), so ranges
read in any order yield each record once.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from itertools import pairwise
from typing import BinaryIO, Literal, NamedTuple, Protocol

import numpy as np

DocumentUnit = Literal["file", "paragraph", "line"]
RecordParser = Callable[[bytes], str]  # raises ValueError for a malformed record
MAX_RECORD = 2**24  # bytes of a line, a paragraph, a text; longer ones are malformed
BLOCK = 2**18
MAX_PIECE, MIN_PIECE = 2**16, 2**12  # bytes of a piece of a text file
MIN_PIECES, FEW_FILES = 512, 32  # fewer than 32 files are split into about 512 pieces, if that makes them smaller
MAX_BOUNDARY_BYTES = 2**12  # searched for the end of a line or word after a nominal start
MAX_SHOWN = 40  # characters of a malformed record in a message
BOM = b"\xef\xbb\xbf"
BLANK = re.compile(rb"\A(?:[ \t\r]*\n)+")


class Record(NamedTuple):
    """The offset and bytes of a record; None for one longer than `MAX_RECORD`, which is not read to its end."""

    start: int
    data: bytes | None


class RecordSplitter(Protocol):
    def __call__(self, file: BinaryIO, begin: int, end: int, size: int, low: int, high: int) -> Iterator[Record]:
        """The records that begin in bytes `begin` up to `end` of a file of `size` bytes.

        Args:
            low, high: the range of the file that is used at all; it contains `begin` and `end`.
        """
        ...


class RecordFormat(NamedTuple):
    """Finds and parses the records of uncompressed files; `settings` determine both, for fingerprints."""

    split: RecordSplitter
    parse: RecordParser
    settings: str


class DelimitedRecords:
    """Records that begin after each match of a pattern.

    Args:
        pattern: matches one byte, perhaps with a lookahead.
        ahead: bytes that the lookahead may cover.
    """

    def __init__(self, pattern: bytes, ahead: int = 0) -> None:
        self.pattern, self.ahead = re.compile(pattern, re.DOTALL), ahead

    def __call__(self, file: BinaryIO, begin: int, end: int, size: int, low: int, high: int) -> Iterator[Record]:
        position = max(begin - 1, 0)
        file.seek(position)
        data = file.read(min(end + self.ahead, size) - position)
        starts = [0] if begin == 0 else []
        starts += [match.end() for match in self.pattern.finditer(data) if match.end() < end - position]
        for start, stop in pairwise(starts):
            yield Record(position + start, data[start:stop])
        if starts:
            yield Record(position + starts[-1], self._last(file, data[starts[-1] :], size - position - len(data)))

    def _last(self, file: BinaryIO, head: bytes, left: int) -> bytes | None:
        """The last record of a range: begins with `head` and may continue beyond the range."""
        searched = 0
        while not (match := self.pattern.search(head, searched)):
            if len(head) > MAX_RECORD or left <= 0:
                return head if len(head) <= MAX_RECORD else None
            searched = max(len(head) - 1 - self.ahead, 0)
            block = file.read(min(BLOCK, left))
            head, left = head + block, left - len(block)
        return head[: match.end()]


LINES = DelimitedRecords(rb"\n")
PARAGRAPHS = DelimitedRecords(rb"\n(?=[ \t\r]{0,16}\n)", ahead=17)


class FixedSizePieces:
    """A whole file, split about every `piece` bytes at the end of a line, else of a word, else of a character."""

    def __init__(self, piece: int) -> None:
        self.piece = piece

    def __call__(self, file: BinaryIO, begin: int, end: int, size: int, low: int, high: int) -> Iterator[Record]:
        grid = range(-(-begin // self.piece) * self.piece, end, self.piece)
        for nominal in [low, *grid] if begin == low and low % self.piece else grid:
            after = min((nominal // self.piece + 1) * self.piece, high)
            start, stop = self._boundary(file, nominal, size), self._boundary(file, after, size)
            file.seek(start)
            yield Record(start, file.read(stop - start))

    def _boundary(self, file: BinaryIO, nominal: int, size: int) -> int:
        if nominal == 0 or nominal >= size:
            return min(nominal, size)
        file.seek(nominal)
        after = file.read(min(MAX_BOUNDARY_BYTES, self.piece // 2))
        for sign in (rb"\n", rb"\s", rb"[^\x80-\xbf]"):
            if match := re.search(sign, after):
                return nominal + (match.start() if sign.startswith(b"[^") else match.end())
        return nominal


def text_format(document_unit: DocumentUnit, sizes: np.ndarray) -> RecordFormat:
    """The format of .txt files of these sizes."""
    match document_unit:
        case "paragraph":
            return RecordFormat(
                PARAGRAPHS, lambda record: plain_text(BLANK.sub(b"", record).rstrip()), "text:paragraph"
            )
        case "line":
            return RecordFormat(LINES, lambda record: plain_text(record.rstrip(b"\r\n")), "text:line")
        case "file":
            target = int(sizes.sum()) // MIN_PIECES if len(sizes) < FEW_FILES else MAX_PIECE
            piece = min(max(1 << target.bit_length(), MIN_PIECE), MAX_PIECE)
            return RecordFormat(FixedSizePieces(piece), plain_text, f"text:file,{piece}")


def json_format(column: str) -> RecordFormat:
    return RecordFormat(LINES, json_text(column), f"json:{column}")


def plain_text(record: bytes) -> str:
    """UTF-8 text, including NUL and other control characters."""
    try:
        return record.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte 0x{record[error.start]:02x} is not UTF-8") from None


def json_text(column: str) -> RecordParser:
    """A parser of lines that hold one JSON object each."""

    def parse(record: bytes) -> str:
        line = plain_text(record)
        if not (content := line.strip()):
            return ""
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            hint = " (truncated?)" if content[0] == "{" and content[-1] != "}" else ""
            raise ValueError(f"not JSON: {error.msg} at column {error.colno}{hint}") from None
        except (RecursionError, ValueError) as error:
            raise ValueError(f"not JSON that can be read: {type(error).__name__}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{_abbreviate(row)} is not an object, expected {{{json.dumps(column)}: ...}}")
        return column_text(row, column)

    return parse


def column_text(row: Mapping[str, object], column: str) -> str:
    """The text in a column; raises ValueError unless it is text that UTF-8 can encode, of at most `MAX_RECORD`."""
    if column not in row:
        raise ValueError(missing_column(column, list(row)))
    text = row[column]
    if not isinstance(text, str):
        raise ValueError(f"column {column!r} holds {_abbreviate(text)}, expected text")
    if len(text) > MAX_RECORD:
        raise ValueError(f"a text of {len(text)} characters, expected <= {MAX_RECORD}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"a lone surrogate (\\u{ord(text[error.start]):04x}) is not a character") from None
    return text


def missing_column(column: str, columns: list[str]) -> str:
    close = get_close_matches(column, columns, n=1)
    hint = f"; did you mean data.text_column={close[0]}?" if close else ""
    return f"no column {column!r}, expected one of {', '.join(map(str, columns[:12])) or 'none'}{hint}"


def _abbreviate(value: object) -> str:
    text = json.dumps(value, default=repr)
    return f"{text[:MAX_SHOWN]}..." if len(text) > MAX_SHOWN else text
