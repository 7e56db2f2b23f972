"""Wall-clock time of the training loop."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class ThroughputTimer:
    """Seconds since the last reading, without the pauses."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        self._since = self._clock()

    def read(self) -> float:
        """Seconds since the last reading or restart; at least a nanosecond, so that a rate can be computed."""
        now, since = self._clock(), self._since
        self._since = now
        return max(now - since, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside does not count."""
        start = self._clock()
        try:
            yield
        finally:
            self._since += self._clock() - start
