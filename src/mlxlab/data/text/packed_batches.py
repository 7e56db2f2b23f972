"""Batches of packed rows, for training and evaluating language models."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from mlxlab.data.batch import Batch
from mlxlab.data.loaders.collate import check_ids
from mlxlab.data.loaders.wait_timer import WaitTimer
from mlxlab.data.text.cursor import TextCursor
from mlxlab.data.text.masking import Masker
from mlxlab.data.text.packing import PackedRows, Packer, count_rows
from mlxlab.data.text.row_shuffle import RowShuffleBuffer, fill_packer
from mlxlab.data.text.token_stream import ChunkSource, TokenChunk
from mlxlab.errors import DataError


@dataclass(frozen=True)
class RowBuilder:
    """Makes batches of packed rows.

    Args:
        length: positions of a row.
        stride: tokens from the start of a row to the start of the next.
        mask_across_documents: number the documents of a row, so that attention stays within each.
        vocab_size, pad_id: of the tokenizer.
        masker: hides tokens, which are then the targets; None makes each position predict the next token.
    """

    length: int
    stride: int
    mask_across_documents: bool
    vocab_size: int
    pad_id: int
    masker: Masker | None = None

    def packer(self, offset: int = 0) -> Packer:
        return Packer(self.length, self.stride, self.target_shift, self.pad_id, self.mask_across_documents, offset)

    def count_rows(self, tokens: int) -> int:
        return count_rows(tokens, self.length, self.stride, self.target_shift)

    @property
    def target_shift(self) -> int:
        return 0 if self.masker else 1

    def batch(self, rows: PackedRows, numbers: np.ndarray, epoch: int) -> Batch:
        """The checked batch of R rows, whose numbers in the epoch are `numbers` (R,)."""
        tokens, targets = rows.tokens[:, : self.length], rows.tokens[:, -self.length :]
        real = np.arange(self.length) < (rows.sizes - self.target_shift)[:, None]
        mask = real
        if self.mask_across_documents:
            documents = rows.documents[:, : self.length]
            mask = np.where(real, documents - documents[:, :1] + 1, 0).astype(np.int32)
        weights = real
        if self.masker:
            tokens, weights = self.masker.mask_tokens(tokens, real, epoch, numbers)
        targets = np.where(real, targets, 0).astype(np.int32)
        batch = Batch(np.ascontiguousarray(tokens), mask, targets, weights.astype(np.float32), rows.ids)
        return check_ids(batch, self.vocab_size, self.vocab_size)


class PackedBatchIterator:
    """Endless batches, an epoch at a time, all of one shape: the last of an epoch is completed with rows of weight 0.

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
                taken = buffer.take(self.batch_size)
                if taken is None:
                    raise DataError(f"epoch {cursor.epoch}: no text to train on after row {cursor.row}")
                rows, more = taken[0], buffer.more
                numbers = np.pad(taken[1], (0, self.batch_size - len(taken[1])))
                batch = self.builder.batch(self._complete(rows), numbers, cursor.epoch)
                self._cursor = buffer.cursor if more else TextCursor(cursor.epoch + 1)
                yield batch

    def _complete(self, rows: PackedRows) -> PackedRows:
        """Adds empty rows up to the batch size."""
        missing = self.batch_size - len(rows.sizes)
        if not missing:
            return rows
        empty = (self.builder.pad_id, 0, 0, -1)
        added = (np.full((missing, *old.shape[1:]), value, old.dtype) for old, value in zip(rows, empty, strict=True))
        return PackedRows(*(np.concatenate(pair) for pair in zip(rows, added, strict=True)))


class PackedEvalBatches:
    """The same batches each time it is iterated. The last may have fewer rows."""

    def __init__(self, chunks: Sequence[TokenChunk], builder: RowBuilder, batch_size: int) -> None:
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
