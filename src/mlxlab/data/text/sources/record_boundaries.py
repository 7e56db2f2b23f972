"""Finds record boundaries from any offset of a file without reading what precedes it.

A record belongs to the byte range in which it begins (a fixed-size piece: in which its nominal start lies), so ranges
read in any order yield each record once.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO, NamedTuple, Protocol

MAX_RECORD = 2**24  # bytes of a line, a paragraph, a text; longer ones are malformed
BLOCK = 2**18
MAX_BOUNDARY_BYTES = 2**12  # searched for the end of a line or word after a nominal start


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
        while True:
            if match := self.pattern.search(head, searched):
                return head[: match.end()]
            if len(head) > MAX_RECORD or left <= 0:
                return head if len(head) <= MAX_RECORD else None
            searched = max(len(head) - 1 - self.ahead, 0)
            block = file.read(min(BLOCK, left))
            head, left = head + block, left - len(block)


LINES = DelimitedRecords(rb"\n")
PARAGRAPHS = DelimitedRecords(rb"\n(?=[ \t\r]{0,16}\n)", ahead=17)


class FixedSizePieces:
    """A whole file, split about every `piece` bytes at the end of a line, else of a word, else of a character."""

    def __init__(self, piece: int = 2**16) -> None:
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
