"""Tokens of many rows, cached and memory-mapped: made once, checked, and read a batch at a time."""

import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from mlxlab.data.cache import HEADER_BYTES, cached
from mlxlab.errors import DataError

BLOCK = 4096  # rows that are tokenized together

Tokenize = Callable[[np.ndarray], Sequence[np.ndarray]]  # numbers of rows -> int32 tokens of each


class TokenCache:
    """Tokens of rows 0..N-1 by number. The file holds the lengths of all rows, then their tokens.

    Args:
        path: the file; its name must hold the key of the content.
        rows: N.
        tokenize: makes the tokens, at least one a row and at most `max_length`, of a block of rows.
    """

    def __init__(
        self, path: Path, rows: int, tokenize: Tokenize, vocab_size: int, max_length: int
    ) -> None:
        dtype = np.uint16 if vocab_size <= 2**16 else np.int32
        lengths = np.zeros(rows, np.int32)
        first = HEADER_BYTES + lengths.nbytes

        def write(file: BinaryIO) -> None:
            file.seek(first)
            for start in range(0, rows, BLOCK):
                sequences = tokenize(np.arange(start, min(start + BLOCK, rows)))
                lengths[start : start + BLOCK] = list(map(len, sequences))
                file.write(np.concatenate(sequences).astype(dtype).tobytes())
            file.seek(HEADER_BYTES)
            file.write(lengths.tobytes())

        def read(data: mmap.mmap) -> tuple[np.ndarray, np.ndarray]:
            try:
                lengths = np.frombuffer(data, np.int32, rows, HEADER_BYTES)
                tokens = np.frombuffer(data, dtype, offset=first)
            except ValueError:  # The file is too short.
                raise DataError("other rows than these") from None
            if not 0 < lengths.min() <= lengths.max() <= max_length or lengths.sum() != len(tokens):
                raise DataError("other rows than these")
            return lengths, tokens

        (self.lengths, self._tokens), self.outcome = cached(path, write, read)
        self._ends = np.cumsum(self.lengths, dtype=np.int64)

    def take(self, rows: np.ndarray) -> list[np.ndarray]:
        """int32 tokens of each of these rows. Their range is checked with the batch."""
        ends = self._ends[rows]
        starts = ends - self.lengths[rows]
        bounds = zip(starts.tolist(), ends.tolist(), strict=True)
        return [self._tokens[start:end].astype(np.int32) for start, end in bounds]
