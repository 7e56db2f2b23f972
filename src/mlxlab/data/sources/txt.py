"""Plain text: a document is a file (in pieces) or a line."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from mlxlab.data.sources.files import ByteStream
from mlxlab.data.sources.messages import describe_fault
from mlxlab.data.sources.text_files import Parsed, Skip, TextFormat, seek_line

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
    names: Sequence[str] | None

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
                skip(number, describe_fault(error))
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
