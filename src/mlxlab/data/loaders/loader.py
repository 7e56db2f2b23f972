"""Batches of a data set that fits in memory. Any position is reached without replaying, and can be saved."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict

import numpy as np

from mlxlab.data.batch import Batch, load_position, pad_rows
from mlxlab.data.rng import Order
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

    def state_dict(self) -> dict[str, object]:
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
