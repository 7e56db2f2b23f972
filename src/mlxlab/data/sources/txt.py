"""Plain text: a document is a file (in pieces), a paragraph or a line."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlxlab.data.sources.block import Block, Start
from mlxlab.data.sources.files import ByteStream
from mlxlab.data.sources.messages import not_utf8
from mlxlab.data.sources.text_files import BLOCK_BYTES, MAX_RECORD, Fault, Parsed, seek_line

DocumentUnit = Literal["file", "paragraph", "line"]
BLANK_LINES = re.compile(rb"\n(?:[ \t\r]*\n)+")
LEADING_BLANK_LINES = re.compile(r"(?:[ \t\r]*\n)*")
MIN_PIECE = 2**12  # bytes of a piece of a file
MAX_PIECE = 2**16
MIN_PIECES = 512  # of fewer than FEW_FILES files, so that there is something to shuffle
FEW_FILES = 32
MAX_BOUNDARY_BYTES = 2**12  # searched for the end of a line, a word or a character


@dataclass(frozen=True)
class Txt:
    """Documents of a text file, in whatever column is asked for."""

    unit: DocumentUnit = "file"
    piece: int = MAX_PIECE
    is_splittable = True

    @property
    def settings(self) -> str:
        return f"txt:{self.unit}:{self.piece}"

    def columns(self, stream: ByteStream) -> Sequence[str]:
        return []

    def open(self, stream: ByteStream, columns: Sequence[str] | None) -> "TxtParser":
        column = columns[0] if columns else "text"
        return TxtParser(self.unit, self.piece, column)

    def seek_record(self, stream: ByteStream, begin: int, limit: int) -> None:
        match self.unit:
            case "file":
                stream.seek(begin)
                stream.seek(begin + _boundary(stream.read(MAX_BOUNDARY_BYTES)))
            case "line":
                seek_line(stream, begin, limit)
            case "paragraph":
                _seek_paragraph(stream, begin, limit)


def piece_bytes(sizes: Sequence[int]) -> int:
    """The size of the pieces into which text files of these sizes are split."""
    if len(sizes) >= FEW_FILES:
        return MAX_PIECE
    size = 1 << (sum(sizes) // MIN_PIECES).bit_length()
    return min(max(size, MIN_PIECE), MAX_PIECE)


class TxtParser:
    """A `Parser`."""

    def __init__(self, unit: DocumentUnit, piece: int, column: str) -> None:
        self.unit = unit
        self.piece = piece
        self.column = column

    def parse(self, data: bytes, start: Start, is_last: bool) -> Parsed:
        is_break = np.frombuffer(data, np.uint8) == ord("\n")
        ends = self._ends(data, is_break)
        if is_last and (not ends or ends[-1] < len(data)):
            ends.append(len(data))
        rows: list[dict[str, object]] = []
        numbers: list[int] = []
        faults: list[Fault] = []
        begin = 0
        line = start[1] + 1
        for end in ends:
            record = data[begin:end]
            try:
                text, lines_before = self._text(record)
            except UnicodeDecodeError as error:
                number = line + record.count(b"\n", 0, error.start)
                faults.append(Fault(number, not_utf8(record[error.start])))
            else:
                if text and not text.isspace():
                    rows.append({self.column: text})
                    numbers.append(line + lines_before)
            line += int(np.count_nonzero(is_break[begin:end]))
            begin = end
        block = Block(start, rows, np.array(numbers, np.int64))
        return Parsed(block, begin, line - start[1] - 1, faults)

    def _text(self, record: bytes) -> tuple[str, int]:
        """The text of a record, and the number of blank lines before it."""
        text = record.decode()
        match self.unit:
            case "line":
                return text.rstrip("\r\n"), 0
            case "paragraph":
                blank = LEADING_BLANK_LINES.match(text)
                end = blank.end() if blank else 0
                return text[end:].rstrip(), text.count("\n", 0, end)
        return text, 0

    def _ends(self, data: bytes, is_break: np.ndarray) -> list[int]:
        if self.unit == "line":
            return (np.flatnonzero(is_break) + 1).tolist()
        if self.unit == "paragraph":
            ends = [match.end() for match in BLANK_LINES.finditer(data)]
            return [end for end in ends if end < len(data)]
        return list(self._piece_ends(data))

    def _piece_ends(self, data: bytes) -> Iterator[int]:
        end = 0
        while len(data) - end > self.piece + MAX_BOUNDARY_BYTES:
            end += self.piece
            end += _boundary(data[end : end + MAX_BOUNDARY_BYTES])
            yield end


def _boundary(data: bytes) -> int:
    """Where these bytes can be split: behind a line, else a word, else before a character."""
    for pattern in (rb"\n", rb"\s", rb"(?=[^\x80-\xbf])"):
        match = re.search(pattern, data)
        if match:
            return match.end()
    return 0


def _seek_paragraph(stream: ByteStream, begin: int, limit: int) -> None:
    """Moves behind the first blank lines that begin at or after a line that does so."""
    seek_line(stream, begin, limit)
    first = stream.offset
    is_after_blank = False
    while line := stream.read_line(BLOCK_BYTES):
        is_blank = line.isspace()
        if is_after_blank and not is_blank:
            stream.seek(stream.offset - len(line))
            return
        is_after_blank = is_blank
        if stream.offset - first > MAX_RECORD:  # Any line will do.
            stream.seek(first)
            return
