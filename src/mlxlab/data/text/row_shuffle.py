"""Row shuffle: decorrelates consecutive rows of long documents.

A buffer of rows is taken from the text and permuted by (seed, epoch, first row). A position is the position of the
buffer in the text and the number of rows drawn from it: seeking makes that one buffer again.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mlxlab.data.rng import Stream, permutation
from mlxlab.data.text.cursor import TextCursor
from mlxlab.data.text.packing import PackedRows, Packer
from mlxlab.data.text.token_stream import TokenChunk


class RowShuffleBuffer:
    """The remaining rows of an epoch.

    Args:
        packer: positioned at `cursor`.
        chunks: the tokens that follow.
        size: rows that are permuted together; 0 leaves the rows in the order of the text.
    """

    def __init__(self, packer: Packer, chunks: Iterator[TokenChunk], size: int, seed: int, cursor: TextCursor) -> None:
        self.packer, self.chunks, self.size, self.seed = packer, chunks, size, seed
        self.start, self.drawn = cursor, cursor.rows_drawn
        self.rows: PackedRows | None = None
        self.order = np.zeros(0, np.int64)

    def take(self, count: int) -> tuple[PackedRows, np.ndarray] | None:
        """Up to `count` rows and the number (R,) of each in the epoch; fewer only at its end, None after it."""
        buffers: list[tuple[PackedRows, np.ndarray]] = []
        while count and (self._left or self._refill(count)):
            chosen = self.order[self.drawn : self.drawn + count]
            assert self.rows is not None
            buffers.append((PackedRows(*(array[chosen] for array in self.rows)), self.start.row + chosen))
            self.drawn += len(chosen)
            count -= len(chosen)
        if not buffers:
            return None
        rows, numbers = zip(*buffers, strict=True)
        return PackedRows(*map(np.concatenate, zip(*rows, strict=True))), np.concatenate(numbers)

    @property
    def more(self) -> bool:
        """Are there rows left in the epoch?"""
        return bool(self._left) or self.packer.more

    @property
    def cursor(self) -> TextCursor:
        """The position of the next row; only while there are more."""
        return replace(self.start, rows_drawn=self.drawn) if self._left else self._next_buffer()

    @property
    def _left(self) -> int:
        return len(self.order) - self.drawn if self.rows is not None else 0

    def _refill(self, count: int) -> bool:
        if self.rows is not None:
            if not self.more:
                return False
            self.start, self.drawn = self._next_buffer(), 0
        fill_packer(self.packer, self.chunks, self.size or count)
        self.rows = self.packer.take(self.size or count)
        available = len(self.rows.sizes)
        numbers = (Stream.ROW_SHUFFLE, self.start.epoch, self.start.row)
        self.order = permutation(available, self.seed, *numbers) if self.size else np.arange(available)
        return self._left > 0

    def _next_buffer(self) -> TextCursor:
        start, offset = self.packer.position
        return TextCursor(self.start.epoch, self.start.row + len(self.order), 0, start, offset)


def fill_packer(packer: Packer, chunks: Iterator[TokenChunk], rows: int) -> None:
    """Adds the chunks that `rows` rows need, or all there are."""
    while packer.needs_more(rows) and (chunk := next(chunks, None)) is not None:
        packer.add(chunk)
