"""The first batches of a data set, repeated: overfitting them shows whether a model learns at all."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TypedDict

from mlxlab.constraints import Count
from mlxlab.data.batch import Batch, BatchIterator, check_position


class RepeatState(TypedDict):
    """The position of the repeated batches in the data set, and the position within them."""

    first: dict[str, object]
    epoch: Count
    index: Count


class RepeatBatches:
    """Every epoch is the first `number` batches that follow the position of `source`, or all if there are fewer.

    The batches are made once and kept in memory, so that masks and order do not vary by epoch.
    Implements `BatchIterator`.
    """

    def __init__(self, source: BatchIterator, number: int) -> None:
        self.source, self.number = source, number
        self.first = source.state_dict()
        self.epoch = self.index = 0
        self._cached: list[Batch] = []

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch
        while self.epoch == epoch:
            self._cached = batches = self._cached or list(islice(self.source, self.number))
            batch = batches[min(self.index, len(batches) - 1)]  # a larger batch size may have left fewer
            self.index += 1
            if self.index >= len(batches):
                self.epoch, self.index = epoch + 1, 0
            yield batch

    @property
    def at_epoch_start(self) -> bool:
        return self.index == 0

    @property
    def batch_size(self) -> int:
        return self.source.batch_size

    @property
    def batches_per_epoch(self) -> int | None:
        available = self.source.batches_per_epoch
        return self.number if available is None else min(available, self.number)

    @property
    def tokens_per_batch(self) -> int | None:
        return self.source.tokens_per_batch

    @property
    def skipped_records(self) -> int:
        return self.source.skipped_records

    def resize(self, batch_size: int) -> None:
        """The first batches are made again, with the new size."""
        self.source.load_state_dict(self.first)
        self.source.resize(batch_size)
        self._cached = []

    def state_dict(self) -> dict[str, object]:
        return {"first": self.first, "epoch": self.epoch, "index": self.index}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Also takes a position of the data set itself: then the batches that follow it are repeated."""
        if "first" not in state:
            state = {"first": dict(state), "epoch": self.epoch, "index": 0}
        position = check_position(dict(state), RepeatState)
        self.source.load_state_dict(position["first"])
        if position["first"] != self.first:
            self._cached = []
        self.first, self.epoch, self.index = position["first"], position["epoch"], position["index"]


def repeat_batches(batches: BatchIterator, number: int | None) -> BatchIterator:
    """Only the first `number` batches, or all of them for None."""
    return batches if number is None else RepeatBatches(batches, number)
