"""Packing: the concatenated tokens of documents, split into rows of equal length."""

from typing import NamedTuple

import numpy as np

from mlxlab.data.text.cursor import DocumentCursor
from mlxlab.data.text.token_stream import TokenChunk


class PackedRows(NamedTuple):
    """R rows of W tokens; only the last row of an epoch may be short, and is padded on the right."""

    tokens: np.ndarray  # (R, W) int32
    sizes: np.ndarray  # (R,) int64: tokens without padding
    documents: np.ndarray  # (R, W) int64: equal for tokens of one document; (R, 0) unless `number_documents`
    ids: np.ndarray  # (R,) int64: of the document of the first token


class Packer:
    """Takes chunks of tokens and returns rows: row n is tokens n * stride to n * stride + length (+ 1).

    Args:
        length: positions of a row.
        stride: tokens from the start of a row to the start of the next; below `length` rows overlap.
        target_shift: 1 where a row has one token more, the target of its last position.
        pad_id: pads the last row.
        number_documents: return which tokens belong to the same document.
        offset: tokens of the first document that were used already.
    """

    def __init__(
        self, length: int, stride: int, target_shift: int, pad_id: int, number_documents: bool = False, offset: int = 0
    ) -> None:
        self.width, self.stride, self.target_shift, self.pad_id = length + target_shift, stride, target_shift, pad_id
        self.number_documents = number_documents
        # With this many tokens after the start of a row, another row with something new in it follows.
        self.min_lookahead = min_lookahead(length, stride, target_shift)
        self.tokens = np.zeros(0, np.int32)
        self.ends = np.zeros(0, np.int64)  # of each document, counted from the first token held
        self.lengths, self.ids = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.cursors: list[DocumentCursor] = []
        self._to_drop = offset  # tokens that are not here yet

    def add(self, chunk: TokenChunk) -> None:
        dropped = min(self._to_drop, len(chunk.tokens))
        start = len(self.tokens) - self._to_drop
        self._to_drop -= dropped
        self.tokens = np.concatenate([self.tokens, chunk.tokens[dropped:]])
        self.ends = np.concatenate([self.ends, start + np.cumsum(chunk.lengths)])
        self.lengths = np.concatenate([self.lengths, chunk.lengths])
        self.ids = np.concatenate([self.ids, chunk.ids])
        self.cursors += chunk.cursors()
        self._forget_used_documents()

    def needs_more(self, rows: int) -> bool:
        """Are more tokens needed for `rows` rows, and to know whether others follow?"""
        return len(self.tokens) < rows * self.stride + self.min_lookahead

    def take(self, max_rows: int) -> PackedRows:
        """Returns up to `max_rows` rows; fewer only at the end of the epoch."""
        count = min(max_rows, max(0, (len(self.tokens) - self.width) // self.stride + 1))
        left = len(self.tokens) - count * self.stride
        short = count < max_rows and left >= (self.min_lookahead if count else self.target_shift + 1)
        starts = np.arange(count + short, dtype=np.int64) * self.stride
        indices = starts[:, None] + np.arange(self.width)  # (R, W)
        tokens = self.tokens[np.minimum(indices, len(self.tokens) - 1)]
        sizes = np.minimum(len(self.tokens) - starts, self.width)
        if short:
            tokens[-1, sizes[-1] :] = self.pad_id
        ids = self.ids[np.searchsorted(self.ends, starts, side="right")]
        numbered = indices if self.number_documents else indices[:, :0]
        documents = np.searchsorted(self.ends, numbered, side="right")
        self._drop(len(starts) * self.stride)
        return PackedRows(tokens, sizes, documents, ids)

    @property
    def more(self) -> bool:
        """Is there another row in the tokens that are held?"""
        return len(self.tokens) >= self.min_lookahead

    @property
    def position(self) -> tuple[DocumentCursor, int]:
        """The document of the first token held, and the index of that token in it."""
        return self.cursors[0], int(self.lengths[0] - self.ends[0])

    def _drop(self, count: int) -> None:
        dropped = min(count, len(self.tokens))
        self._to_drop += count - dropped
        self.tokens = self.tokens[dropped:]
        self.ends = self.ends - count
        self._forget_used_documents()

    def _forget_used_documents(self) -> None:
        """The last document stays, as the position needs it."""
        used = min(int(np.searchsorted(self.ends, 0, side="right")), len(self.ends) - 1)
        if used > 0:
            self.ends, self.lengths, self.ids = self.ends[used:], self.lengths[used:], self.ids[used:]
            del self.cursors[:used]


def min_lookahead(length: int, stride: int, target_shift: int) -> int:
    """Tokens after the start of a row from which on another row follows it."""
    return max(length + target_shift - stride, target_shift) + 1


def count_rows(tokens: int, length: int, stride: int, target_shift: int) -> int:
    """Rows that `tokens` tokens make: the full ones, and a short one if anything is left."""
    if tokens < target_shift + 1:
        return 0
    full = max(0, (tokens - length - target_shift) // stride + 1)
    left = tokens - full * stride
    return full + (left >= (min_lookahead(length, stride, target_shift) if full else target_shift + 1))
