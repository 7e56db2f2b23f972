"""Batches of a data set that fits in memory. Any position is reached without replaying, and can be saved."""

from collections.abc import Callable, Generator, Iterator, Mapping
from typing import TypedDict

import numpy as np

from mlxlab.constraints import Count
from mlxlab.data.batch import Batch
from mlxlab.data.cursor import check_example, load_cursor
from mlxlab.data.loaders.wait_timer import WaitTimer
from mlxlab.data.rng import Order

Collate = Callable[[int, np.ndarray], Batch]  # (epoch, indices of examples) -> their batch


class LoaderState(TypedDict):
    """A position, counted in examples so that it fits any batch size."""

    epoch: Count
    example: Count  # examples of this epoch that were used
    fingerprint: str


class DataLoader:
    """Endless batches, an epoch at a time, in an order that is a function of the epoch. The short last batch is kept.

    Implements `BatchIterator`.
    """

    tokens_per_batch, skipped_records = None, 0

    def __init__(
        self, num_examples: int, batch_size: int, order: Order, collate: Collate, fingerprint: str = ""
    ) -> None:
        self.num_examples, self.batch_size = num_examples, batch_size
        self.order, self.collate, self.fingerprint = order, collate, fingerprint
        self.epoch, self.example = 0, 0  # of the next batch
        self.timer = WaitTimer()

    def __iter__(self) -> Iterator[Batch]:
        return self.timer.timed(self._rest_of_epoch())

    @property
    def at_epoch_start(self) -> bool:
        return self.example == 0

    @property
    def batches_per_epoch(self) -> int:
        return -(-self.num_examples // self.batch_size)

    @property
    def wait_seconds(self) -> float:
        return self.timer.seconds

    def resize(self, batch_size: int) -> None:
        self.batch_size = batch_size

    def state_dict(self) -> dict[str, object]:
        return {"epoch": self.epoch, "example": self.example, "fingerprint": self.fingerprint}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        cursor = load_cursor(state, LoaderState, self.fingerprint)
        check_example(cursor["example"], self.num_examples)
        self.epoch, self.example = cursor["epoch"], cursor["example"]

    def _rest_of_epoch(self) -> Generator[Batch, None, None]:
        epoch, order = self.epoch, self.order(self.epoch)
        while self.epoch == epoch:
            end = self.example + self.batch_size
            batch = self.collate(epoch, order[self.example : end])
            self.epoch, self.example = (epoch, end) if end < self.num_examples else (epoch + 1, 0)
            yield batch


class EvalLoader:
    """The same batches in the same order each time it is iterated: for evaluation."""

    def __init__(self, num_examples: int, batch_size: int, collate: Collate) -> None:
        self.num_examples, self.batch_size, self.collate = num_examples, batch_size, collate

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self.num_examples, self.batch_size):
            yield self.collate(0, np.arange(start, min(start + self.batch_size, self.num_examples)))

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch_size)
