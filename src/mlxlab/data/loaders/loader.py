"""Batches of a data set that fits in memory; any place is reached at once, and the place can be saved."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mlxlab.data.batch import Batch
from mlxlab.data.rng import Order
from mlxlab.errors import DataError

Collate = Callable[[int, np.ndarray], Batch]  # (epoch, indices of examples) -> their batch


class DataLoader:
    """Endless batches, an epoch at a time, in an order that is a function of the epoch. The short last batch is kept.

    The place is kept in examples, so a saved one also fits another batch size.
    """

    def __init__(self, count: int, batch_size: int, order: Order, collate: Collate, fingerprint: str = "") -> None:
        self.examples, self.batch_size = count, batch_size
        self.order, self.collate, self.fingerprint = order, collate, fingerprint
        self.epoch, self.example = 0, 0  # where the next batch starts
        self.waited = 0.0
        self.batch_tokens: int | None = None

    def __iter__(self) -> Iterator[Batch]:
        epoch, order = self.epoch, self.order(self.epoch)
        while self.epoch == epoch:
            end, began = self.example + self.batch_size, time.perf_counter()
            batch = self.collate(epoch, order[self.example : end])
            self._move(end)
            self.waited += time.perf_counter() - began
            yield batch

    @property
    def at_start(self) -> bool:
        return self.example == 0

    @property
    def count(self) -> int:
        return -(-self.examples // self.batch_size)

    def resize(self, batch_size: int) -> None:
        """From the next batch on."""
        self.batch_size = batch_size

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "example": self.example, "count": self.examples, "data": self.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a saved place.

        Raises:
            DataError: the place was saved with other data.
        """
        check_cursor(state, self.examples, self.fingerprint)
        self.epoch, self.example = state["epoch"], state["example"]

    def _move(self, example: int) -> None:
        if example < self.examples:
            self.example = example
        else:
            self.epoch, self.example = self.epoch + 1, 0


class EvalLoader:
    """The same batches in the same order each time it is iterated: for evaluation."""

    def __init__(self, count: int, batch_size: int, collate: Collate) -> None:
        self.count, self.batch_size, self.collate = count, batch_size, collate

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self.count, self.batch_size):
            yield self.collate(0, np.arange(start, min(start + self.batch_size, self.count)))

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)


def check_cursor(state: dict[str, Any], examples: int, fingerprint: str) -> None:
    """DataError if a saved place is in other data, or in no place of these."""
    if (state["count"], state["data"]) != (examples, fingerprint):
        there, here = f"{state['count']} examples ({state['data']})", f"{examples} ({fingerprint})"
        raise DataError(f"the saved place is in other data: {there}, here {here}")
    if state["epoch"] < 0 or not 0 <= state["example"] < examples:
        raise DataError(f"the saved place is example {state['example']} of epoch {state['epoch']}, which is not there")
