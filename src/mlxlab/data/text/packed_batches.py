"""Batches of packed rows, for training and evaluating language models."""

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing

from mlxlab.data.batch import Batch
from mlxlab.data.cursor import load_cursor
from mlxlab.data.loaders.wait_timer import WaitTimer
from mlxlab.data.text.packing import RowShuffleBuffer, TextCursor, epoch_start
from mlxlab.data.text.row_builder import RowBuilder
from mlxlab.data.text.token_stream import ChunkSource, TokenChunk
from mlxlab.errors import DataError


class SavedCursor(TextCursor):
    """The position in a checkpoint."""

    fingerprint: str


class PackedBatchIterator:
    """Endless batches, an epoch at a time, all of one shape: the last of several is completed with rows of weight 0.

    The position is counted in documents and tokens, so it fits any batch size. Implements `BatchIterator`.

    Args:
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
        self._cursor = epoch_start(0)

    def __iter__(self) -> Iterator[Batch]:
        return self.timer.timed(self._rest_of_epoch())

    @property
    def epoch(self) -> int:
        return self._cursor["epoch"]

    @property
    def at_epoch_start(self) -> bool:
        return self._cursor["row"] == self._cursor["rows_drawn"] == 0

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
        return {**self._cursor, "fingerprint": self.fingerprint}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self._cursor = load_cursor(state, SavedCursor, self.fingerprint)

    def _rest_of_epoch(self) -> Generator[Batch, None, None]:
        cursor = self._cursor
        with closing(self.chunks(cursor["epoch"], cursor["start"])) as chunks:
            packer = self.builder.packer(chunks, cursor)
            buffer = RowShuffleBuffer(packer, self.row_shuffle_buffer, self.seed, cursor)
            more = True
            while more:
                rows, more = buffer.take(self.batch_size), buffer.more
                if rows is None:
                    raise DataError(f"epoch {cursor['epoch']}: no text to train on after row {cursor['row']}")
                if more or not self.at_epoch_start:  # an epoch of one batch has one shape anyway
                    rows = rows.padded(self.batch_size, self.builder.pad_id)
                batch = self.builder.batch(rows, cursor["epoch"])
                self._cursor = buffer.cursor if more else epoch_start(cursor["epoch"] + 1)
                yield batch


class PackedEvalBatches:
    """Batches of the tokens of `chunks`, the same each time if that is a list. The last may have fewer rows."""

    def __init__(self, chunks: Iterable[TokenChunk], builder: RowBuilder, batch_size: int) -> None:
        self.chunks, self.builder, self.batch_size = chunks, builder, batch_size

    def __iter__(self) -> Iterator[Batch]:
        packer, more = self.builder.packer(iter(self.chunks), epoch_start(0)), True
        while more and len((rows := packer.take(self.batch_size)).sizes):
            yield self.builder.batch(rows, epoch=0)
            more = packer.more
