"""Length bucketing: batches of examples of about the same length, so that there is little padding and few shapes.

Lengths are rounded up to one of a few boundaries, chosen to minimise the padding of this data. How an epoch is divided
into batches is a function of (seed, epoch, batch size); any position in it is reached without replaying.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import NamedTuple, Protocol, TypedDict

import numpy as np

from mlxlab.constraints import Count, Size
from mlxlab.data.batch import Batch, BatchIterator
from mlxlab.data.cursor import check_example, load_cursor
from mlxlab.data.loaders.bucket_boundaries import optimal_boundaries
from mlxlab.data.loaders.collate import pad_rows
from mlxlab.data.loaders.loader import DataLoader
from mlxlab.data.loaders.wait_timer import WaitTimer
from mlxlab.data.rng import Order, Stream, epoch_permutation, permutation
from mlxlab.errors import ConfigError

Collate = Callable[[int, np.ndarray, int | None], Batch]  # (epoch, examples, length to pad to) -> their batch


class Batching(Protocol):
    """The number of examples of a batch.

    `num_buckets` is the number of lengths that are padded to, None for any length; `fills` says whether a short batch
    is filled up with empty rows; `resizable` whether `size` has an effect on `rows`.
    """

    @property
    def num_buckets(self) -> int | None: ...

    @property
    def fills(self) -> bool: ...

    @property
    def resizable(self) -> bool: ...

    def rows(self, size: int, boundaries: np.ndarray) -> np.ndarray:
        """Examples of a full batch, for each boundary; `size` is the configured batch size."""
        ...


class FixedBatchSize:
    """The same number of examples in every batch.

    Args:
        num_buckets: lengths to pad to; fewer of them are fewer compiled shapes, more of them less padding. null takes
            the examples in their shuffled order and pads to the longest of a batch, rounded up to a multiple of 8.
    """

    fills = False  # only the last and shortest bucket has a short batch, in every epoch the same shape
    resizable = True

    def __init__(self, num_buckets: Size | None) -> None:
        self.num_buckets = num_buckets

    def rows(self, size: int, boundaries: np.ndarray) -> np.ndarray:
        return np.full(len(boundaries), size)


class TokenBudget:
    """About the same number of tokens in every batch: more of the short examples, fewer of the long ones.

    Args:
        tokens: of a batch, padding included; null is the batch size times the longest length.
        num_buckets: lengths to pad to.
    """

    fills = True

    def __init__(self, tokens: Size | None, num_buckets: Size) -> None:
        self.tokens, self.num_buckets = tokens, num_buckets
        self.resizable = tokens is None

    def rows(self, size: int, boundaries: np.ndarray) -> np.ndarray:
        return np.maximum((self.tokens or size * boundaries[-1]) // boundaries, 1)


def make_loader(
    lengths: Callable[[int], np.ndarray],
    batching: Batching,
    batch_size: int,
    seed: int,
    collate: Collate,
    fingerprint: str = "",
    all_lengths: np.ndarray | None = None,
) -> BatchIterator:
    """Shuffled batches of examples of `lengths(epoch)` tokens.

    Args:
        all_lengths: the lengths to choose boundaries for; None takes those of epoch 0.
    """
    first = lengths(0)
    order = epoch_permutation(len(first), seed)
    if batching.num_buckets is None:
        return DataLoader(
            len(first), batch_size, order, lambda epoch, indices: collate(epoch, indices, None), fingerprint
        )
    boundaries = optimal_boundaries(first if all_lengths is None else all_lengths, batching.num_buckets)
    return BucketLoader(lengths, boundaries, batching, batch_size, order, seed, collate, fingerprint)


class BucketBatch(NamedTuple):
    """The examples of one batch, the length they are padded to, and the rows of a full batch of that length."""

    examples: np.ndarray
    length: int
    rows: int


class BucketState(TypedDict):
    """A position. `consumed` holds (batch size, examples) for each batch size that was used in this epoch, in order."""

    epoch: Count
    consumed: list[tuple[Size, Count]]
    fingerprint: str


class BucketLoader:
    """Endless batches, an epoch at a time, of examples whose lengths are known. Every example comes once an epoch.

    The position is counted in examples: after a change of the batch size, the examples that are left in the epoch are
    divided again. Implements `BatchIterator`.
    """

    tokens_per_batch, skipped_records = None, 0

    def __init__(
        self,
        lengths: Callable[[int], np.ndarray],
        boundaries: np.ndarray,
        batching: Batching,
        batch_size: int,
        order: Order,
        seed: int,
        collate: Collate,
        fingerprint: str = "",
    ) -> None:
        self.lengths, self.boundaries, self.batching, self.batch_size = lengths, boundaries, batching, batch_size
        self.order, self.seed, self.collate, self.fingerprint = order, seed, collate, fingerprint
        self.epoch = 0
        self.consumed: list[tuple[int, int]] = []
        self.num_examples = len(order(0))
        self.timer = WaitTimer()
        self._plan: Iterator[BucketBatch] | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self.timer.timed(self._rest_of_epoch())

    @property
    def example(self) -> int:
        """Examples of this epoch that were used."""
        return sum(used for _, used in self.consumed)

    @property
    def at_epoch_start(self) -> bool:
        return self.example == 0

    @property
    def batches_per_epoch(self) -> int:
        return len(self._divide(self.order(0), 0, self.batch_size))

    @property
    def wait_seconds(self) -> float:
        return self.timer.seconds

    def resize(self, batch_size: int) -> None:
        if not self.batching.resizable:
            raise ConfigError("data.batching.tokens: a fixed number of tokens fixes the batch size; expected null")
        self.batch_size, self._plan = batch_size, None

    def state_dict(self) -> dict[str, object]:
        consumed = [list(pair) for pair in self.consumed]
        return {"epoch": self.epoch, "consumed": consumed, "fingerprint": self.fingerprint}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        cursor = load_cursor(state, BucketState, self.fingerprint)
        check_example(sum(used for _, used in cursor["consumed"]), self.num_examples)
        self.epoch, self.consumed, self._plan = cursor["epoch"], list(cursor["consumed"]), None

    def _rest_of_epoch(self) -> Generator[Batch, None, None]:
        epoch = self.epoch
        while self.epoch == epoch:
            if self._plan is None:
                self._plan = iter(self._remaining())
            planned = next(self._plan)
            batch = self.collate(epoch, planned.examples, planned.length)
            self._consume(len(planned.examples))
            yield pad_rows(batch, planned.rows) if self.batching.fills else batch

    def _consume(self, count: int) -> None:
        if self.consumed and self.consumed[-1][0] == self.batch_size:
            count += self.consumed.pop()[1]
        self.consumed.append((self.batch_size, count))
        if self.example >= self.num_examples:
            self.epoch, self.consumed, self._plan = self.epoch + 1, [], None

    def _remaining(self) -> list[BucketBatch]:
        """The batches of this epoch that are still to come."""
        order = self.order(self.epoch)
        for size, used in self.consumed[:-1]:
            order = _without(order, self._divide(order, self.epoch, size), used)
        if not self.consumed:
            return self._divide(order, self.epoch, self.batch_size)
        size, used = self.consumed[-1]
        batches = self._divide(order, self.epoch, size)
        if size == self.batch_size:
            ends = np.cumsum([len(batch.examples) for batch in batches])
            return batches[int(np.searchsorted(ends, used, side="right")) :]
        return self._divide(_without(order, batches, used), self.epoch, self.batch_size)

    def _divide(self, order: np.ndarray, epoch: int, size: int) -> list[BucketBatch]:
        rows = self.batching.rows(size, self.boundaries)
        batches = split_by_length(order, self.lengths(epoch), self.boundaries, rows)
        return [batches[index] for index in permutation(len(batches), self.seed, Stream.BATCH_ORDER, epoch)]


def split_by_length(
    order: np.ndarray, lengths: np.ndarray, boundaries: np.ndarray, rows: np.ndarray
) -> list[BucketBatch]:
    """The examples of `order` in batches, from the longest bucket to the shortest; within a bucket in the given order.

    A bucket's last batch is completed with examples of the next shorter one, so only the last batch of all is short.
    """
    bucket = np.searchsorted(boundaries, lengths[order])  # the first boundary that is long enough
    longest_first = np.argsort(-bucket, kind="stable")
    order, bucket = order[longest_first], bucket[longest_first]
    batches, start = [], 0
    while start < len(order):
        index = bucket[start]
        end = start + int(rows[index])
        batches.append(BucketBatch(order[start:end], int(boundaries[index]), int(rows[index])))
        start = end
    return batches


def _without(order: np.ndarray, batches: list[BucketBatch], used: int) -> np.ndarray:
    """The examples of an order, in that order, without the first `used` examples of its batches."""
    consumed = np.concatenate([batch.examples for batch in batches])[:used]
    return order[~np.isin(order, consumed)]
