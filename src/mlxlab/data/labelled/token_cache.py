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

Tokenize = Callable[[np.ndarray], Sequence[np.ndarray]]  # numbers of rows -> int32 tokens of each


class TokenCache:
    """Tokens of rows 0..N-1 by number.

    Args:
        path: the file; its name must hold the key of the content.
        rows: N.
        tokenize: makes the tokens, at least one a row and at most `max_length`, of a block of rows.
    """

    def __init__(
        self, path: Path, rows: int, tokenize: Tokenize, vocab_size: int, max_length: int
    ) -> None:
        self._tokenize = tokenize
        self._vocab_size = vocab_size
        self._max_length = max_length
        self._rows = rows
        self._dtype = np.dtype(np.uint16 if vocab_size <= 2**16 else np.int32)
        table, self.outcome = cached_table(path, self._batches, self._check, self._check_table)
        chunks = table.column("tokens").chunks
        self._chunks = [(chunk.values.to_numpy(), chunk.offsets.to_numpy()) for chunk in chunks]
        lengths = [np.diff(offsets) for _, offsets in self._chunks]
        self.lengths = np.concatenate(lengths)  # (N,) int32

    def take(self, rows: np.ndarray) -> list[np.ndarray]:
        """int32 tokens of each of these rows."""
        sequences: list[np.ndarray] = []
        for row in rows.tolist():
            number, index = divmod(row, BLOCK)
            values, offsets = self._chunks[number]
            sequences.append(values[offsets[index] : offsets[index + 1]].astype(np.int32))
        return sequences

    def _batches(self) -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        for start in range(0, self._rows, BLOCK):
            sequences = self._tokenize(np.arange(start, min(start + BLOCK, self._rows)))
            offsets = np.cumsum([0, *map(len, sequences)], dtype=np.int32)
            array = pa.ListArray.from_arrays(offsets, np.concatenate(sequences).astype(self._dtype))
            yield pa.record_batch([array], ["tokens"])

    def _check(self, batch: "pa.RecordBatch") -> None:
        import pyarrow as pa

        expected = pa.schema([("tokens", pa.list_(pa.from_numpy_dtype(self._dtype)))])
        if batch.schema != expected or batch.column(0).null_count or len(batch) > BLOCK:
            raise DataError("other columns than those of tokens")
        lengths = np.diff(batch.column(0).offsets.to_numpy())
        values = batch.column(0).values.to_numpy()
        has_lengths = 0 < lengths.min() <= lengths.max() <= self._max_length
        if not has_lengths or not 0 <= values.min() <= values.max() < self._vocab_size:
            raise DataError("other lengths or token ids than those of the rows")

    def _check_table(self, table: "pa.Table") -> None:
        """Raises DataError unless the table has all rows, in full blocks."""
        blocks = [len(chunk) for chunk in table.column("tokens").chunks]
        expected = [BLOCK] * (self._rows // BLOCK)
        if self._rows % BLOCK:
            expected.append(self._rows % BLOCK)
        if blocks != expected:
            raise DataError(f"expected {self._rows} rows, got {len(table)}")
