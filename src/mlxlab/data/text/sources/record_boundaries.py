"""Where the records of a file begin, found from any place of the file without reading what lies before.

A record belongs to the stretch of the file in which it begins (a piece of a file: in which its nominal place lies), so
stretches read in any order give each record once.
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO, NamedTuple, Protocol

MAX_RECORD = 2**24  # bytes of a line, a paragraph, a text; longer ones are faults
BLOCK = 2**18
SLACK = 2**12  # bytes after a nominal place in which a line's or word's end is looked for


class Record(NamedTuple):
    """Bytes and where they begin; None for a record that was not read to its end, being longer than `MAX_RECORD`."""

    start: int
    data: bytes | None


class RecordSplitter(Protocol):
    def __call__(self, file: BinaryIO, begin: int, end: int, size: int, low: int, high: int) -> Iterator[Record]:
        """The records that begin in bytes `begin` up to `end` of a file of `size` bytes.

        Args:
            low, high: the part of the file that is used at all; `begin` and `end` lie in it.
        """
        ...


class DelimitedRecords:
    """Records that begin after each match of a pattern.

    Args:
        pattern: matches one byte, perhaps with something ahead of it.
        ahead: bytes after that one on which a match may hang.
    """

    def __init__(self, pattern: bytes, ahead: int = 0) -> None:
        self.pattern, self.ahead = re.compile(pattern, re.DOTALL), ahead

    def __call__(self, file: BinaryIO, begin: int, end: int, size: int, low: int, high: int) -> Iterator[Record]:
        place = max(begin - 1, 0)
        file.seek(place)
        data = file.read(min(end + self.ahead, size) - place)
        starts = [0] if begin == 0 else []
        starts += [match.end() for match in self.pattern.finditer(data) if match.end() < end - place]
        for start, stop in pairwise(starts):
            yield Record(place + start, data[start:stop])
        if starts:
            yield Record(place + starts[-1], self._last(file, data[starts[-1] :], size - place - len(data)))

    def _last(self, file: BinaryIO, head: bytes, left: int) -> bytes | None:
        """The record that begins with `head`, the last of its stretch, which may go on in the file."""
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
    """A whole file, cut about every `piece` bytes at the end of a line, else of a word, else of a character."""

    def __init__(self, piece: int = 2**16) -> None:
        self.piece = piece

    def __call__(self, file: BinaryIO, begin: int, end: int, size: int, low: int, high: int) -> Iterator[Record]:
        grid = range(-(-begin // self.piece) * self.piece, end, self.piece)
        for nominal in [low, *grid] if begin == low and low % self.piece else grid:
            after = min((nominal // self.piece + 1) * self.piece, high)
            start, stop = self._place(file, nominal, size), self._place(file, after, size)
            file.seek(start)
            yield Record(start, file.read(stop - start))

    def _place(self, file: BinaryIO, nominal: int, size: int) -> int:
        if nominal == 0 or nominal >= size:
            return min(nominal, size)
        file.seek(nominal)
        after = file.read(min(SLACK, self.piece // 2))
        for sign in (rb"\n", rb"\s", rb"[^\x80-\xbf]"):
            if match := re.search(sign, after):
                return nominal + (match.start() if sign.startswith(b"[^") else match.end())
        return nominal
