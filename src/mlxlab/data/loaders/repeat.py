"""The first batches of a data set, again and again, by which one sees whether a model learns at all."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from mlxlab.data.batch import Batch, BatchIterator


def repeat_batches(batches: BatchIterator, number: int | None) -> BatchIterator:
    """Only the first batches, or all of them for None."""
    return batches if number is None else RepeatBatches(batches, number)


class RepeatBatches:
    """An epoch is the first `number` batches of the epoch in which `batches` stands; every epoch is the same.

    The batches are drawn once and kept: what is drawn anew each epoch (hidden tokens, order) stays as it was.

    Args:
        number: batches of an epoch; fewer where the data set has fewer.
    """

    def __init__(self, batches: BatchIterator, number: int) -> None:
        self.batches, self.number = batches, number
        self.first = batches.state_dict()
        self.epoch = self.place = 0
        self.kept: list[Batch] = []

    def __iter__(self) -> Iterator[Batch]:
        """The rest of the present epoch."""
        kept = self._drawn()
        for batch in kept[self.place :]:
            self.place += 1
            if self.place == len(kept):
                self.epoch, self.place = self.epoch + 1, 0
            yield batch

    def _drawn(self) -> list[Batch]:
        if not self.kept:
            self.kept = list(islice(self.batches, self.number))
        return self.kept

    @property
    def at_start(self) -> bool:
        return self.place == 0

    @property
    def count(self) -> int | None:
        whole = self.batches.count
        return self.number if whole is None else min(whole, self.number)

    @property
    def batch_tokens(self) -> int | None:
        return self.batches.batch_tokens

    @property
    def waited(self) -> float:
        return self.batches.waited

    def state_dict(self) -> dict[str, Any]:
        return {"first": self.first, "epoch": self.epoch, "place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a saved place; of a place of the data set itself, begins with the batches that follow it."""
        if "first" not in state:
            state = {"first": state, "epoch": self.epoch, "place": 0}
        if state["first"] != self.first:
            self.kept = []
        self.first, self.epoch, self.place = state["first"], state["epoch"], state["place"]
        self.batches.load_state_dict(self.first)
