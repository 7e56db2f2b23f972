"""Measures how long training waits for data."""

from collections.abc import Callable, Generator
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")


class WaitTimer:
    """Sums up the time between asking for an item and getting it.

    Args:
        clock: seconds from an arbitrary start.
    """

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self.clock, self.seconds = clock, 0.0

    def timed(self, items: Generator[T, None, None]) -> Generator[T, None, None]:
        """The same items; closing it closes `items`."""
        try:
            while True:
                start = self.clock()
                try:
                    item = next(items)
                except StopIteration:
                    return
                finally:
                    self.seconds += self.clock() - start
                yield item
        finally:
            items.close()
