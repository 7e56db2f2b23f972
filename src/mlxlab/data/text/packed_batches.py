"""Batches of packed rows: what language models are trained and evaluated on."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlxlab.data.batch import Batch
from mlxlab.data.loaders.collate import check_ids
from mlxlab.data.text.masking import Masker
from mlxlab.data.text.packing import PackedRows, Packer, count_rows
from mlxlab.data.text.row_shuffle import RowShuffleBuffer, epoch_start, fill_packer
from mlxlab.data.text.token_stream import ChunkIterator, Cursor, TokenChunk
from mlxlab.errors import DataError


@dataclass(frozen=True)
class RowBuilder:
    """How rows of tokens become batches.

    Args:
        length: places of a row.
        stride: tokens from the start of a row to the start of the next.
        isolate: number the documents of a row, so that attention stays within each.
        vocab_size, pad_id: of the tokenizer.
        masker: hides tokens, which are then the targets; None has each place guess the next token.
    """

    length: int
    stride: int
    isolate: bool
    vocab_size: int
    pad_id: int
    masker: Masker | None = None

    def packer(self, offset: int = 0) -> Packer:
        return Packer(self.length, self.stride, self.ahead, self.pad_id, self.isolate, offset)

    def count_rows(self, tokens: int) -> int:
        return count_rows(tokens, self.length, self.stride, self.ahead)

    @property
    def ahead(self) -> int:
        return 0 if self.masker else 1

    def batch(self, rows: PackedRows, numbers: np.ndarray, epoch: int) -> Batch:
        """The checked batch of R rows, of which `numbers` (R,) says the place in the epoch."""
        tokens, targets = rows.tokens[:, : self.length], rows.tokens[:, -self.length :]
        real = np.arange(self.length) < (rows.sizes - self.ahead)[:, None]
        mask = real
        if self.isolate:
            documents = rows.documents[:, : self.length]
            mask = np.where(real, documents - documents[:, :1] + 1, 0).astype(np.int32)
        weights = real
        if self.masker:
            tokens, weights = self.masker.hide(tokens, real, epoch, numbers)
        targets = np.where(real, targets, 0).astype(np.int32)
        batch = Batch(np.ascontiguousarray(tokens), mask, targets, weights.astype(np.float32), rows.ids)
        return check_ids(batch, self.vocab_size, self.vocab_size)


class PackedBatchIterator:
    """Endless batches, an epoch at a time, each of the same shape: what is missing in the last has weight 0.

    The place is kept in documents and tokens, so a saved one also fits another batch size or number of processes.

    Args:
        chunks: the tokens of an epoch from any place on.
        batch_size: rows of a batch of all processes together.
        count: batches of an epoch, where known or estimated.
        pool: rows that are permuted together, by `seed`; 0 leaves them in the order of the text.
    """

    def __init__(
        self,
        chunks: ChunkIterator,
        framing: RowBuilder,
        batch_size: int,
        fingerprint: str,
        count: int | None,
        pool: int = 0,
        seed: int = 0,
    ) -> None:
        self.chunks, self.framing, self.batch_size = chunks, framing, batch_size
        self.fingerprint, self.count, self.pool, self.seed = fingerprint, count, pool, seed
        self.waited = 0.0
        self._state = epoch_start(0)

    @property
    def epoch(self) -> int:
        return int(self._state["epoch"])

    @property
    def at_start(self) -> bool:
        return self._state["row"] == self._state["drawn"] == 0

    @property
    def batch_tokens(self) -> int | None:
        return self.batch_size * self.framing.length

    @property
    def skipped(self) -> int:
        """Malformed records that were passed over so far."""
        return self.chunks.skipped

    def resize(self, batch_size: int) -> None:
        """From the next batch on."""
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Batch]:
        began = time.perf_counter()
        for batch, state in self._rest(self._state):
            self._state = state
            self.waited += time.perf_counter() - began
            yield batch
            began = time.perf_counter()

    def _rest(self, state: dict[str, Any]) -> Iterator[tuple[Batch, dict[str, Any]]]:
        """The rest of an epoch: each batch with the place after it."""
        epoch = state["epoch"]
        place = Cursor(state["window"], state["before"], state["document"])
        with closing(self.chunks(epoch, place)) as chunks:  # type: ignore[type-var]
            pool = RowShuffleBuffer(self.framing.packer(state["offset"]), chunks, self.pool, self.seed, state)
            more = True
            while more:
                taken = pool.take(self.batch_size)
                if taken is None:
                    raise DataError(f"epoch {epoch}: no text to train on after row {state['row']}")
                rows, more = taken[0], pool.more
                numbers = np.pad(taken[1], (0, self.batch_size - len(taken[1])))
                after = pool.place if more else epoch_start(epoch + 1)
                yield self.framing.batch(self._full(rows), numbers, epoch), after

    def _full(self, rows: PackedRows) -> PackedRows:
        """As many rows as a batch has: empty ones are added."""
        lacking = self.batch_size - len(rows.sizes)
        if not lacking:
            return rows
        empty = (self.framing.pad_id, 0, 0, -1)
        added = (np.full((lacking, *old.shape[1:]), value, old.dtype) for old, value in zip(rows, empty, strict=True))
        return PackedRows(*(np.concatenate(pair) for pair in zip(rows, added, strict=True)))

    def state_dict(self) -> dict[str, Any]:
        return self._state | {"data": self.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a saved place.

        Raises:
            DataError: the place was saved with other data, or is none.
        """
        if state["data"] != self.fingerprint:
            raise DataError(f"the saved place is in other data: {state['data']}, here {self.fingerprint}")
        numbers = [state[name] for name in ("epoch", "row", "drawn", "before", "document", "offset")]
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise DataError(f"the saved place is {numbers}: not whole numbers >= 0")
        self._state = {name: state[name] for name in epoch_start(0)}


class PackedEvalBatches:
    """The same batches each time it is iterated. The last may have fewer rows."""

    def __init__(self, chunks: list[TokenChunk], framing: RowBuilder, batch_size: int) -> None:
        self.chunks, self.framing, self.batch_size = chunks, framing, batch_size

    def __iter__(self) -> Iterator[Batch]:
        packer, row, chunks = self.framing.packer(), 0, iter(self.chunks)
        while True:
            fill_packer(packer, chunks, self.batch_size)
            rows = packer.take(self.batch_size)
            if not len(rows.sizes):
                return
            yield self.framing.batch(rows, np.arange(row, row + len(rows.sizes)), epoch=0)
            row += len(rows.sizes)
            if len(packer.tokens) < packer.enough:
                return
