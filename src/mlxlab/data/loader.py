"""Batches of a data set that fits in memory, of examples of about the same length.

Any position is reached without replaying, and can be saved. Batches by length have little padding and few shapes:
lengths are rounded up to one of a few boundaries, chosen to minimise the padding of this data. How an epoch is divided
into batches is a function of (seed, epoch, batch size).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict

import numpy as np

from mlxlab.data.batch import Batch, State, load_position, pad_rows
from mlxlab.data.rng import Order, Stream, epoch_permutation, permutation
from mlxlab.errors import DataError
from mlxlab.schema.constraints import Count, Size

# (epoch, examples, length to pad to) -> their batch
Collate = Callable[[int, np.ndarray, int | None], Batch]


class PlannedBatch(NamedTuple):
    """The examples of a batch, before it is made.

    Args:
        length: tokens that every example is padded to; None is the longest of the batch.
        rows: examples up to which empty rows are added.
    """

    examples: np.ndarray
    length: int | None = None
    rows: int = 0


# (order, epoch, batch size) -> its batches
Divide = Callable[[np.ndarray, int, int], list[PlannedBatch]]


class LoaderState(TypedDict):
    """A position. `consumed` holds (batch size, examples) for each batch size that was used in this epoch, in order."""

    epoch: Count
    consumed: list[tuple[Size, Size]]
    fingerprint: str


def divide_in_order(order: np.ndarray, epoch: int, batch_size: int) -> list[PlannedBatch]:
    starts = range(0, len(order), batch_size)
    return [PlannedBatch(order[start : start + batch_size]) for start in starts]


@dataclass(eq=False)
class DataLoader:
    """Endless batches, an epoch at a time, in which every example comes once. A short last batch is kept.

    The position is counted in examples: after a change of the batch size, the examples that are left in the epoch are
    divided again. Implements `BatchIterator`.

    Args:
        order: of the examples of an epoch.
    """

    num_examples: int
    batch_size: int
    order: Order
    collate: Collate
    fingerprint: str = ""
    divide: Divide = divide_in_order
    epoch: int = field(default=0, init=False)
    _consumed: list[tuple[int, int]] = field(default_factory=list, init=False)
    _plan: Iterator[PlannedBatch] | None = field(default=None, init=False)  # the rest of the epoch
    tokens_per_batch = None
    skipped_records = 0

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch
        while self.epoch == epoch:
            if self._plan is None:
                self._plan = iter(self._remaining())
            planned = next(self._plan)
            batch = self.collate(epoch, planned.examples, planned.length)
            self._consume(len(planned.examples))
            yield pad_rows(batch, planned.rows)

    @property
    def at_epoch_start(self) -> bool:
        return not self._consumed

    @property
    def batches_per_epoch(self) -> int:
        return len(self.divide(self.order(0), 0, self.batch_size))

    def resize(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._plan = None

    def state_dict(self) -> State:
        consumed = [list(pair) for pair in self._consumed]
        return {"epoch": self.epoch, "consumed": consumed, "fingerprint": self.fingerprint}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        position = load_position(state, LoaderState, self.fingerprint)
        used = sum(count for _, count in position["consumed"])
        if used >= self.num_examples:
            got = f"example {used} of an epoch of {self.num_examples}"
            raise DataError(f"the saved position is malformed: {got}")
        self._move(position["epoch"], position["consumed"])

    def _consume(self, count: int) -> None:
        if self._consumed and self._consumed[-1][0] == self.batch_size:
            count += self._consumed.pop()[1]
        self._consumed.append((self.batch_size, count))
        if sum(used for _, used in self._consumed) >= self.num_examples:
            self._move(self.epoch + 1, [])

    def _move(self, epoch: int, consumed: list[tuple[int, int]]) -> None:
        self.epoch = epoch
        self._consumed = consumed
        self._plan = None

    def _remaining(self) -> list[PlannedBatch]:
        """The batches of this epoch that are still to come."""
        order = self.order(self.epoch)
        for size, used in self._consumed:
            batches = self.divide(order, self.epoch, size)
            examples = [batch.examples for batch in batches]
            ends = np.cumsum([*map(len, examples)])
            remaining = batches[int(np.searchsorted(ends, used, side="right")) :]
            order = order[~np.isin(order, np.concatenate(examples)[:used])]
        if self._consumed and size == self.batch_size:
            return remaining
        return self.divide(order, self.epoch, self.batch_size)


@dataclass(frozen=True)
class EvalLoader:
    """Yields the same batches in the same order each time it is iterated: for evaluation."""

    num_examples: int
    batch_size: int
    collate: Callable[[np.ndarray], Batch]

    def __length_hint__(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self.num_examples, self.batch_size):
            yield self.collate(np.arange(start, min(start + self.batch_size, self.num_examples)))


MAX_CANDIDATES = 512  # lengths that are considered as boundaries; more are quantized


@dataclass(frozen=True)
class FixedBatchSize:
    """Gives every batch the same number of examples.

    Args:
        num_buckets: lengths to pad to; fewer of them are fewer compiled shapes, more of them less padding. null takes
            the examples in their shuffled order and pads to the longest of a batch, rounded up to a multiple of 8.
    """

    num_buckets: Size | None
    # Only the last and shortest bucket has a short batch, of one shape in every epoch.
    fills = False

    def rows(self, size: int, boundaries: np.ndarray) -> np.ndarray:
        return np.full(len(boundaries), size)


@dataclass(frozen=True)
class TokenBudget:
    """About the same number of tokens in every batch: as many as the batch size has of the longest examples.

    Args:
        num_buckets: lengths to pad to.
    """

    num_buckets: Size
    fills = True

    def rows(self, size: int, boundaries: np.ndarray) -> np.ndarray:
        return size * boundaries[-1] // boundaries


def make_loader(
    lengths: Callable[[int], np.ndarray],
    batching: FixedBatchSize | TokenBudget,
    batch_size: int,
    seed: int,
    collate: Collate,
    fingerprint: str,
    all_lengths: np.ndarray,
) -> DataLoader:
    """Shuffled batches of examples of `lengths(epoch)` tokens; `all_lengths` fix the boundaries."""
    count = len(lengths(0))
    order = epoch_permutation(count, seed)
    if batching.num_buckets is None:
        return DataLoader(count, batch_size, order, collate, fingerprint)
    boundaries = optimal_boundaries(all_lengths, batching.num_buckets)

    def divide(order: np.ndarray, epoch: int, size: int) -> list[PlannedBatch]:
        rows = batching.rows(size, boundaries)
        batches = split_by_length(order, lengths(epoch), boundaries, rows, fills=batching.fills)
        shuffled = permutation(len(batches), seed, Stream.BATCH_ORDER, epoch)
        return [batches[index] for index in shuffled]

    return DataLoader(count, batch_size, order, collate, fingerprint, divide)


def split_by_length(
    order: np.ndarray,
    lengths: np.ndarray,
    boundaries: np.ndarray,
    rows: np.ndarray,
    *,
    fills: bool,
) -> list[PlannedBatch]:
    """The examples of `order` in batches of `rows[i]` for boundary i, the longest first.

    The last batch of a bucket is completed with examples of the next shorter one, so that only the
    last batch of all is short. With `fills` empty rows are added to that.
    """
    bucket = np.searchsorted(boundaries, lengths[order])  # the first boundary that is long enough
    longest_first = np.argsort(-bucket, kind="stable")
    order = order[longest_first]
    bucket = bucket[longest_first]
    batches = []
    start = 0
    while start < len(order):
        size = int(rows[bucket[start]])
        length = int(boundaries[bucket[start]])
        batches.append(PlannedBatch(order[start : start + size], length, size if fills else 0))
        start += size
    return batches


def optimal_boundaries(lengths: np.ndarray, count: int) -> np.ndarray:
    """The at most `count` lengths, rising, that pad these lengths least when each is rounded up to one of them."""
    values, counts = _candidates(np.maximum(lengths, 1))
    num_up_to = np.cumsum(counts)  # (V,) examples of at most each length
    costs = values * num_up_to.astype(float)  # token slots, if one boundary holds all up to it
    # A layer for each number of boundaries: the boundary before the last, plus 1; 0 for none.
    layers = []
    for _ in range(min(count, len(values)) - 1):
        # One more boundary j holds the lengths i+1..j; the others hold 0..i as well as they can.
        num_between = num_up_to[None] - num_up_to[:, None]
        candidates = costs[:, None] + values[None] * num_between  # (V, V) by i and j
        candidates[np.tril_indices(len(values))] = np.inf
        best = candidates.min(axis=0)
        is_better = best < costs
        layers.append(np.where(is_better, candidates.argmin(axis=0) + 1, 0))
        costs = np.where(is_better, best, costs)

    last = len(values) - 1
    boundaries = [values[last]]
    for layer in reversed(layers):
        if layer[last]:
            last = int(layer[last]) - 1
            boundaries.append(values[last])
    return np.array(boundaries[::-1])


def _candidates(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lengths that may be boundaries, rising, and how many examples have each; many are rounded up."""
    values, counts = np.unique(lengths, return_counts=True)
    if len(values) <= MAX_CANDIDATES:
        return values, counts
    step = -(-int(values[-1]) // MAX_CANDIDATES)
    rounded = -(-lengths // step) * step
    return np.unique(np.minimum(rounded, values[-1]), return_counts=True)
