"""Rows in an order of their own: neighbours in a long text are alike, and a batch of them teaches less.

A pool of rows is taken from the text and permuted by (seed, epoch, first row). A place is the place of the pool in the
text and how many of its rows were drawn: to get there, that one pool is made again.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from mlxlab.data.rng import counter_hash
from mlxlab.data.text.packing import PackedRows, Packer
from mlxlab.data.text.token_stream import TokenChunk

POOL = 0x9001  # keeps these draws apart from others of the same seed


class RowShuffleBuffer:
    """The rest of an epoch's rows.

    Args:
        packer: stands at `start`.
        chunks: the tokens that follow.
        size: rows of a pool; 0 leaves the rows in the order of the text.
        start: the place of a pool: see `start_of`.
    """

    def __init__(
        self, packer: Packer, chunks: Iterator[TokenChunk], size: int, seed: int, start: dict[str, Any]
    ) -> None:
        self.packer, self.chunks, self.size, self.seed = packer, chunks, size, seed
        self.start, self.drawn = start, start["drawn"]
        self.rows: PackedRows | None = None
        self.order = np.zeros(0, np.int64)

    def take(self, count: int) -> tuple[PackedRows, np.ndarray] | None:
        """The next rows and the number (R,) of each in the epoch; fewer than `count` at its end, None after it."""
        parts: list[tuple[PackedRows, np.ndarray]] = []
        while count and (self._left or self._refill(count)):
            chosen = self.order[self.drawn : self.drawn + count]
            assert self.rows is not None
            parts.append((PackedRows(*(array[chosen] for array in self.rows)), self.start["row"] + chosen))
            self.drawn += len(chosen)
            count -= len(chosen)
        if not parts:
            return None
        found, numbers = zip(*parts, strict=True)
        return PackedRows(*map(np.concatenate, zip(*found, strict=True))), np.concatenate(numbers)

    @property
    def more(self) -> bool:
        """Are there rows left in the epoch?"""
        return bool(self._left) or len(self.packer.tokens) >= self.packer.enough

    @property
    def place(self) -> dict[str, Any]:
        """Where the next row is, as JSON; only while there are more."""
        return self.start | {"drawn": self.drawn} if self._left else self._next()

    @property
    def _left(self) -> int:
        return len(self.order) - self.drawn if self.rows is not None else 0

    def _refill(self, count: int) -> bool:
        if self.rows is not None:
            if not self.more:
                return False
            self.start, self.drawn = self._next(), 0
        fill_packer(self.packer, self.chunks, self.size or count)
        self.rows = self.packer.take(self.size or count)
        found = len(self.rows.sizes)
        draws = counter_hash(self.seed, POOL, self.start["epoch"], self.start["row"], np.arange(found))
        self.order = np.argsort(draws, kind="stable") if self.size else np.arange(found)
        return self._left > 0

    def _next(self) -> dict[str, Any]:
        """The place after the present pool."""
        place, offset = self.packer.place
        row = self.start["row"] + len(self.order)
        return {"epoch": self.start["epoch"], "row": row, "drawn": 0, **place._asdict(), "offset": offset}


def epoch_start(epoch: int) -> dict[str, Any]:
    """The place of an epoch's first row."""
    return {"epoch": epoch, "row": 0, "drawn": 0, "window": None, "before": 0, "document": 0, "offset": 0}


def fill_packer(packer: Packer, chunks: Iterator[TokenChunk], rows: int) -> None:
    """Adds what is needed for so many rows, or all there is."""
    while packer.wants(rows) and (chunk := next(chunks, None)) is not None:
        packer.add(chunk)
