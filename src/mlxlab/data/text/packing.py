"""Packing: the concatenated tokens of documents, split into rows of equal length, which may be shuffled."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import numpy as np

from mlxlab.constraints import Count
from mlxlab.data.rng import Stream, permutation
from mlxlab.data.text.token_stream import EPOCH_START, DocumentCursor, TokenChunk


class TextCursor(TypedDict):
    """The next row of an epoch, as JSON: a buffer of rows, by where it starts in the text, and the rows drawn of it."""

    epoch: Count
    row: Count  # number in the epoch of the first row of the buffer
    rows_drawn: Count  # rows of the buffer that were used
    start: DocumentCursor  # the document of the first token of the buffer
    offset: Count  # index of that token in its document
    fingerprint: str  # of the data


def epoch_start(epoch: int, fingerprint: str = "") -> TextCursor:
    return TextCursor(epoch=epoch, row=0, rows_drawn=0, start=EPOCH_START, offset=0, fingerprint=fingerprint)


class PackedRows(NamedTuple):
    """R rows of W tokens; only the last row of an epoch may be short, and is padded on the right."""

    tokens: np.ndarray  # (R, W) int32
    sizes: np.ndarray  # (R,) int64: tokens without padding
    documents: np.ndarray  # (R, W) int64: equal for tokens of one document; (R, 0) unless `number_documents`
    ids: np.ndarray  # (R,) int64: of the document of the first token
    numbers: np.ndarray  # (R,) int64: the number of each row in the epoch

    def padded(self, num_rows: int, pad_id: int) -> "PackedRows":
        """With empty rows up to `num_rows`, of id -1."""
        missing = num_rows - len(self.sizes)
        values = (pad_id, 0, 0, -1, 0)
        added = (np.full((missing, *old.shape[1:]), value, old.dtype) for old, value in zip(self, values, strict=True))
        return PackedRows(*map(np.concatenate, zip(self, added, strict=True))) if missing else self


@dataclass(frozen=True)
class RowLayout:
    """Row n is tokens n * stride to n * stride + width, the last token of which may only be a target.

    Args:
        length: positions of a row.
        stride: tokens from the start of a row to the start of the next; below `length` rows overlap.
        target_shift: 1 where a row has one token more, the target of its last position; else 0.
        pad_id: pads the last row.
        number_documents: tell which tokens belong to the same document.
    """

    length: int
    stride: int
    target_shift: int
    pad_id: int
    number_documents: bool = False

    @property
    def width(self) -> int:
        return self.length + self.target_shift

    @property
    def min_lookahead(self) -> int:
        """Tokens after the start of a row from which on another row with something new in it follows."""
        return max(self.width - self.stride, self.target_shift) + 1

    def count_rows(self, tokens: int) -> int:
        """Rows that `tokens` tokens make: the full ones, and a short one if anything is left."""
        if tokens <= self.target_shift:
            return 0
        full = max(0, (tokens - self.width) // self.stride + 1)
        return full + (tokens - full * self.stride >= (self.min_lookahead if full else self.target_shift + 1))


class Packer:
    """Makes rows of the tokens of `chunks`, which begin at `cursor`."""

    def __init__(self, chunks: Iterator[TokenChunk], cursor: TextCursor, layout: RowLayout) -> None:
        self.chunks, self.first, self.row, self.layout = chunks, cursor, cursor["row"], layout
        self.tokens = np.zeros(0, np.int32)
        self.ends = np.zeros(0, np.int64)  # of each document, counted from the first token held
        self.lengths, self.ids = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.cursors: list[DocumentCursor] = []
        self._to_drop = cursor["offset"]  # tokens that are not here yet

    def take(self, max_rows: int) -> PackedRows:
        """Up to `max_rows` rows; fewer only at the end of the epoch."""
        layout = self.layout
        while len(self.tokens) < max_rows * layout.stride + layout.min_lookahead:
            chunk = next(self.chunks, None)
            if chunk is None:
                break
            self._add(chunk)
        numbers = np.arange(min(max_rows, layout.count_rows(len(self.tokens))))
        starts = numbers * layout.stride
        indices = starts[:, None] + np.arange(layout.width)  # (R, W)
        tokens = self.tokens[np.minimum(indices, len(self.tokens) - 1)]
        tokens[indices >= len(self.tokens)] = layout.pad_id
        sizes = np.minimum(len(self.tokens) - starts, layout.width)
        documents = np.searchsorted(self.ends, indices if layout.number_documents else indices[:, :0], side="right")
        ids = self.ids[np.searchsorted(self.ends, starts, side="right")]
        rows = PackedRows(tokens, sizes, documents, ids, self.row + numbers)
        self.row += len(numbers)
        self._drop(len(numbers) * layout.stride)
        return rows

    @property
    def more(self) -> bool:
        """True if the tokens that are held make another row."""
        return len(self.tokens) >= self.layout.min_lookahead

    @property
    def cursor(self) -> TextCursor:
        """The position of the first token held."""
        offset = int(self.lengths[0] - self.ends[0])
        return {**self.first, "row": self.row, "rows_drawn": 0, "start": self.cursors[0], "offset": offset}

    def _add(self, chunk: TokenChunk) -> None:
        self.ends = np.concatenate([self.ends, len(self.tokens) + np.cumsum(chunk.lengths)])
        self.tokens = np.concatenate([self.tokens, chunk.tokens])
        self.lengths = np.concatenate([self.lengths, chunk.lengths])
        self.ids = np.concatenate([self.ids, chunk.ids])
        self.cursors += chunk.cursors
        self._drop(self._to_drop)

    def _drop(self, count: int) -> None:
        """Forgets `count` tokens, and the documents before them; the last document stays, as the position needs it."""
        dropped = min(count, len(self.tokens))
        self._to_drop = count - dropped
        self.tokens, self.ends = self.tokens[dropped:], self.ends - dropped
        used = min(int(np.searchsorted(self.ends, 0, side="right")), len(self.ends) - 1)
        if used > 0:
            self.ends, self.lengths, self.ids = self.ends[used:], self.lengths[used:], self.ids[used:]
            del self.cursors[:used]


class RowShuffleBuffer:
    """The remaining rows of an epoch, shuffled to decorrelate consecutive rows of long documents.

    A buffer of `size` rows is taken from the text and permuted by (seed, epoch, first row); 0 leaves the rows in the
    order of the text. A position is that of the buffer in the text and the number of rows drawn from it: seeking makes
    that one buffer again.
    """

    def __init__(self, packer: Packer, size: int, seed: int, cursor: TextCursor) -> None:
        self.packer, self.size, self.seed, self.start = packer, size, seed, cursor
        self.rows: PackedRows | None = None
        self.drawn, self.left = cursor["rows_drawn"], 0

    def take(self, count: int) -> PackedRows | None:
        """Up to `count` rows; fewer only at the end of the epoch, None after it."""
        pieces: list[PackedRows] = []
        while count and (self.left > 0 or self._refill(count)):
            assert self.rows is not None
            piece = PackedRows(*(array[self.drawn : self.drawn + count] for array in self.rows))
            size = len(piece.sizes)
            self.drawn, self.left, count = self.drawn + size, self.left - size, count - size
            pieces.append(piece)
        return PackedRows(*map(np.concatenate, zip(*pieces, strict=True))) if pieces else None

    @property
    def more(self) -> bool:
        """True if rows are left in the epoch."""
        return self.left > 0 or self.packer.more

    @property
    def cursor(self) -> TextCursor:
        """The position of the next row; only while there are more."""
        return {**self.start, "rows_drawn": self.drawn} if self.left > 0 else self.packer.cursor

    def _refill(self, count: int) -> bool:
        """Makes the next buffer; false at the end of the epoch."""
        if self.rows is not None:
            if not self.packer.more:
                return False
            self.start, self.drawn = self.packer.cursor, 0
        self.rows = self.packer.take(self.size or count)
        available = len(self.rows.sizes)
        if self.size:
            order = permutation(available, self.seed, Stream.ROW_SHUFFLE, self.start["epoch"], self.start["row"])
            self.rows = PackedRows(*(array[order] for array in self.rows))
        self.left = available - self.drawn
        return self.left > 0
