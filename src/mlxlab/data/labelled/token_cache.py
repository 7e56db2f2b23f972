"""Tokens of many rows, cached and memory-mapped: made once, checked, and read a batch at a time."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlxlab.data.arrow_cache import cached_table
from mlxlab.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK = 4096  # rows that are tokenized and stored together
MAX_CHECKED = 64  # rows that are tokenized again to check a file

Tokenize = Callable[[np.ndarray], Sequence[np.ndarray]]  # numbers of rows -> int32 tokens of each


class TokenCache:
    """Tokens of rows 0..N-1 by number.

    Args:
        path: the file; its name must hold the key of the content.
        rows: N.
        tokenize: makes the tokens, at least one a row and at most `max_length`, of a block of rows.
    """

    def __init__(self, path: Path, rows: int, tokenize: Tokenize, vocab_size: int, max_length: int) -> None:
        import pyarrow as pa

        self._tokenize, self._vocab_size, self._max_length, self._rows = tokenize, vocab_size, max_length, rows
        schema = pa.schema([("tokens", pa.large_list(pa.int32()))])
        table, self.outcome = cached_table(path, schema, self._batches, self._check)
        self._chunks = _chunks(table)
        self.lengths = _lengths(self._chunks)  # (N,) int64

    def take(self, rows: np.ndarray) -> list[np.ndarray]:
        """int32 tokens of each of these rows."""
        sequences = []
        for row in rows.tolist():
            values, offsets = self._chunks[row // BLOCK]
            sequences.append(values[offsets[row % BLOCK] : offsets[row % BLOCK + 1]])
        return sequences

    def _batches(self) -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        for start in range(0, self._rows, BLOCK):
            sequences = self._tokenize(np.arange(start, min(start + BLOCK, self._rows)))
            offsets = np.cumsum([0, *map(len, sequences)], dtype=np.int64)
            array = pa.LargeListArray.from_arrays(offsets, np.concatenate(sequences).astype(np.int32))
            yield pa.record_batch([array], ["tokens"])

    def _check(self, table: "pa.Table") -> None:
        """Raises DataError unless a sample of the rows has these tokens: a right digest proves no origin."""
        self._chunks = _chunks(table)
        lengths = _lengths(self._chunks)
        sizes = [len(offsets) - 1 for _, offsets in self._chunks]
        blocks_are_full = all(size == BLOCK for size in sizes[:-1])
        if len(lengths) != self._rows or not blocks_are_full or table.column(0).null_count:
            raise DataError(f"expected {self._rows} rows, got {len(lengths)}")
        if lengths.min() < 1 or lengths.max() > self._max_length:
            raise DataError("other lengths than those of the rows")
        if any(values.min() < 0 or values.max() >= self._vocab_size for values, _ in self._chunks):
            raise DataError("token ids out of range")
        sample = np.arange(0, self._rows, -(-self._rows // MAX_CHECKED))
        if not all(map(np.array_equal, self._tokenize(sample), self.take(sample))):
            raise DataError("other tokens than those of the rows")


def _chunks(table: "pa.Table") -> list[tuple[np.ndarray, np.ndarray]]:
    """Values and offsets of each block; without copying."""
    chunks = table.column("tokens").chunks
    return [(chunk.values.to_numpy(), chunk.offsets.to_numpy()) for chunk in chunks]


def _lengths(chunks: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *(np.diff(offsets) for _, offsets in chunks)])
