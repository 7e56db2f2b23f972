"""When each part of a run began and how long it took, for a profile."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Span(NamedTuple):
    """A part of a run; `start` is of `time.perf_counter`, in seconds."""

    name: str
    start: float
    seconds: float


class Trace:
    """The parts of a run in the order of their ends.

    Attributes:
        spans: None keeps nothing, until a callback wants them.
        wait_seconds: all seconds of waiting for data.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.spans: list[Span] | None = None
        self.wait_seconds = 0.0

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens inside is a part of this name."""
        start = self._clock()
        try:
            yield
        finally:
            self._end(name, start)

    def waiting(self, items: Iterable[T]) -> Iterator[T]:
        """Yields the items; the wait for each of them is a part "data"."""
        start = self._clock()
        for item in items:
            self.wait_seconds += self._end("data", start)
            yield item
            start = self._clock()

    def _end(self, name: str, start: float) -> float:
        """Keeps a part that ends now, and returns its seconds."""
        seconds = self._clock() - start
        if self.spans is not None:
            self.spans.append(Span(name, start, seconds))
        return seconds
