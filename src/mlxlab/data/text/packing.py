"""Packing: the tokens of documents one after the other, cut into rows of equal length."""

from typing import NamedTuple

import numpy as np

from mlxlab.data.text.token_stream import Cursor, TokenChunk


class PackedRows(NamedTuple):
    """R rows of W tokens; only the last row of an epoch may be short, and is padded on the right."""

    tokens: np.ndarray  # (R, W) int32
    sizes: np.ndarray  # (R,) int64: real tokens
    documents: (
        np.ndarray
    )  # (R, W) int64: consecutive numbers; tokens of one document share one. (R, 0) if not asked for
    ids: np.ndarray  # (R,) int64: of the document of the first token


class Packer:
    """Takes chunks in and gives rows out: row n is the tokens from n * stride to n * stride + length (+ 1).

    Args:
        length: places of a row.
        stride: tokens from the start of a row to the start of the next; below `length` rows overlap.
        ahead: 1 where a row has one token more, the target of its last place.
        pad_id: fills up the last row.
        numbered: tell which tokens belong together.
        offset: tokens of the first document that were read already.
    """

    def __init__(
        self, length: int, stride: int, ahead: int, pad_id: int, numbered: bool = False, offset: int = 0
    ) -> None:
        self.width, self.stride, self.ahead, self.pad_id = length + ahead, stride, ahead, pad_id
        self.numbered = numbered
        # So many tokens behind the start of a row show that there is another row with something new in it.
        self.enough = max(length + ahead - stride, ahead) + 1
        self.tokens = np.zeros(0, np.int32)
        self.ends = np.zeros(0, np.int64)  # of each document, counted from the first token that is still here
        self.lengths, self.ids = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self.places: list[Cursor] = []
        self._gap = offset  # tokens still to be dropped

    def add(self, chunk: TokenChunk) -> None:
        dropped = min(self._gap, len(chunk.tokens))
        start = len(self.tokens) - self._gap
        self._gap -= dropped
        self.tokens = np.concatenate([self.tokens, chunk.tokens[dropped:]])
        self.ends = np.concatenate([self.ends, start + np.cumsum(chunk.lengths)])
        self.lengths = np.concatenate([self.lengths, chunk.lengths])
        self.ids = np.concatenate([self.ids, chunk.ids])
        self.places += [Cursor(chunk.window, chunk.before, int(number)) for number in chunk.documents]
        self._forget()

    def wants(self, rows: int) -> bool:
        """Is more needed for so many rows, and to know whether others follow?"""
        return len(self.tokens) < rows * self.stride + self.enough

    def take(self, most: int) -> PackedRows:
        """The next rows, at most so many; fewer only at the end of the epoch."""
        count = min(most, max(0, (len(self.tokens) - self.width) // self.stride + 1))
        left = len(self.tokens) - count * self.stride
        short = count < most and left >= (self.enough if count else self.ahead + 1)
        starts = np.arange(count + short, dtype=np.int64) * self.stride
        at = starts[:, None] + np.arange(self.width)  # (R, W)
        tokens = self.tokens[np.minimum(at, len(self.tokens) - 1)]
        sizes = np.minimum(len(self.tokens) - starts, self.width)
        if short:
            tokens[-1, sizes[-1] :] = self.pad_id
        ids = self.ids[np.searchsorted(self.ends, starts, side="right")]
        documents = np.searchsorted(self.ends, at if self.numbered else at[:, :0], side="right")
        self._drop(len(starts) * self.stride)
        return PackedRows(tokens, sizes, documents, ids)

    @property
    def place(self) -> tuple[Cursor, int]:
        """The document of the first token that is still here, and how many of its tokens are gone."""
        return self.places[0], int(self.lengths[0] - self.ends[0])

    def _drop(self, count: int) -> None:
        gone = min(count, len(self.tokens))
        self._gap += count - gone
        self.tokens = self.tokens[gone:]
        self.ends = self.ends - count
        self._forget()

    def _forget(self) -> None:
        """Lets go of documents that are used up; the last one stays, to tell the place."""
        used = min(int(np.searchsorted(self.ends, 0, side="right")), len(self.ends) - 1)
        if used > 0:
            self.ends, self.lengths, self.ids = self.ends[used:], self.lengths[used:], self.ids[used:]
            del self.places[:used]


def count_rows(tokens: int, length: int, stride: int, ahead: int) -> int:
    """Rows that so many tokens make: the full ones, and a short one if anything is left."""
    if tokens < ahead + 1:
        return 0
    full = max(0, (tokens - length - ahead) // stride + 1)
    left = tokens - full * stride
    return full + (left >= (max(length + ahead - stride, ahead) + 1 if full else ahead + 1))
