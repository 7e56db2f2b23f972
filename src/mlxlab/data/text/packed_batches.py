"""Batches of packed rows, for training and evaluating language models."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing

import numpy as np

from mlxlab.data.batch import Batch
from mlxlab.data.loaders.wait_timer import WaitTimer
from mlxlab.data.text.cursor import TextCursor
from mlxlab.data.text.packing import PackedRows
from mlxlab.data.text.row_builder import RowBuilder
from mlxlab.data.text.row_shuffle import RowShuffleBuffer, fill_packer
from mlxlab.data.text.token_stream import ChunkSource, TokenChunk
from mlxlab.errors import DataError


class PackedBatchIterator:
    """Endless batches, an epoch at a time, all of one shape: the last of several is completed with rows of weight 0.

    The position is counted in documents and tokens, so it fits any batch size. Implements `BatchIterator`.

    Args:
        chunks: the tokens of an epoch from any document on.
        batch_size: rows of a batch, of all processes together.
        batches_per_epoch: where known or estimated.
        row_shuffle_buffer: rows that are permuted together, by `seed`; 0 leaves them in the order of the text.
    """

    def __init__(
        self,
        chunks: ChunkSource,
        builder: RowBuilder,
        batch_size: int,
        fingerprint: str,
        batches_per_epoch: int | None,
        row_shuffle_buffer: int = 0,
        seed: int = 0,
    ) -> None:
        self.chunks, self.builder, self.batch_size = chunks, builder, batch_size
        self.fingerprint, self.batches_per_epoch = fingerprint, batches_per_epoch
        self.row_shuffle_buffer, self.seed = row_shuffle_buffer, seed
        self.timer = WaitTimer()
        self._cursor = TextCursor()

    def __iter__(self) -> Iterator[Batch]:
        return self.timer.timed(self._rest_of_epoch())

    @property
    def epoch(self) -> int:
        return self._cursor.epoch

    @property
    def at_epoch_start(self) -> bool:
        return self._cursor.row == self._cursor.rows_drawn == 0

    @property
    def tokens_per_batch(self) -> int:
        return self.batch_size * self.builder.length

    @property
    def wait_seconds(self) -> float:
        return self.timer.seconds

    @property
    def skipped_records(self) -> int:
        return self.chunks.skipped_records

    def resize(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def state_dict(self) -> dict[str, object]:
        return self._cursor.to_json(self.fingerprint)

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self._cursor = TextCursor.from_json(state, self.fingerprint)

    def _rest_of_epoch(self) -> Generator[Batch, None, None]:
        cursor = self._cursor
        with closing(self.chunks(cursor.epoch, cursor.start)) as chunks:
            packer = self.builder.packer(cursor.offset)
            buffer = RowShuffleBuffer(packer, chunks, self.row_shuffle_buffer, self.seed, cursor)
            more = True
            while more:
                drawn = buffer.take(self.batch_size)
                if drawn is None:
                    raise DataError(f"epoch {cursor.epoch}: no text to train on after row {cursor.row}")
                (rows, numbers), more = drawn, buffer.more
                # An epoch that fits into one batch needs no rows to complete it: all its batches have one shape anyway.
                size = self.batch_size if more or self._cursor.row + self._cursor.rows_drawn else len(rows.sizes)
                numbers = np.pad(numbers, (0, size - len(numbers)))
                batch = self.builder.batch(self._complete(rows, size), numbers, cursor.epoch)
                self._cursor = buffer.cursor if more else TextCursor(cursor.epoch + 1)
                yield batch

    def _complete(self, rows: PackedRows, size: int) -> PackedRows:
        """Adds empty rows up to `size`."""
        missing = size - len(rows.sizes)
        if not missing:
            return rows
        empty = (self.builder.pad_id, 0, 0, -1)
        added = (np.full((missing, *old.shape[1:]), value, old.dtype) for old, value in zip(rows, empty, strict=True))
        return PackedRows(*(np.concatenate(pair) for pair in zip(rows, added, strict=True)))


class PackedEvalBatches:
    """Batches of the tokens of `chunks`, the same each time if that is a list. The last may have fewer rows."""

    def __init__(self, chunks: Iterable[TokenChunk], builder: RowBuilder, batch_size: int) -> None:
        self.chunks, self.builder, self.batch_size = chunks, builder, batch_size

    def __iter__(self) -> Iterator[Batch]:
        packer, row, chunks = self.builder.packer(), 0, iter(self.chunks)
        while True:
            fill_packer(packer, chunks, self.batch_size)
            rows = packer.take(self.batch_size)
            if not len(rows.sizes):
                return
            yield self.builder.batch(rows, np.arange(row, row + len(rows.sizes)), epoch=0)
            row += len(rows.sizes)
            if not packer.more:
                return
