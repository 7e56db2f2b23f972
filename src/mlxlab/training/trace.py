"""When each part of a run began and how long it took, for a profile."""

import time
from collections.abc import Iterable, Iterator
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
    """

    def __init__(self) -> None:
        self.spans: list[Span] | None = None

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens inside is a part of this name."""
        if self.spans is None:
            yield
            return
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spans.append(Span(name, start, time.perf_counter() - start))

    def waiting(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The same items; the wait for each of them is a part."""
        iterator = iter(items)
        while True:
            with self.part(name):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item
