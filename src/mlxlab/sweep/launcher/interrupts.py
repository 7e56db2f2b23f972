"""Signals that a sweep receives: the first Ctrl-C starts no further job, the second one stops those that run.

SIGTERM and SIGHUP stop them at once. Once they stop, the next Ctrl-C or SIGTERM kills them.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WAITS, _STOPS, _KILLS = 1, 2, 3
_LINES = {
    _WAITS: "waiting for those that run; Ctrl-C again stops them",
    _STOPS: "stopping those that run; Ctrl-C again kills them",
    _KILLS: "killing those that run",
}
_SAME_SIGNAL = 1.0  # seconds: `timeout` sends SIGTERM to the process and again to its group


class Interrupts:
    """What the signals so far ask for."""

    def __init__(self) -> None:
        self.stop_signal = 0  # the first one, 0 if there was none: no further job is to be started
        self._level = 0
        self._terminated = -_SAME_SIGNAL

    @property
    def stops_jobs(self) -> bool:
        """Whether running jobs are to save and stop."""
        return self._level >= _STOPS

    @property
    def kills_jobs(self) -> bool:
        """Whether running jobs are to end at once."""
        return self._level == _KILLS

    def receive(self, number: int, _: object = None) -> None:
        before = self._level
        self.stop_signal = self.stop_signal or number
        self._level = min(self._next_level(number), _KILLS)
        if self._level != before:
            print(
                f"\n{signal.Signals(number).name}: no further jobs; {_LINES[self._level]}",
                file=sys.stderr,
            )

    def _next_level(self, number: int) -> int:
        if number == signal.SIGINT:
            return self._level + 1
        if number == signal.SIGHUP:
            return max(self._level, _STOPS)
        earlier, self._terminated = self._terminated, time.monotonic()
        is_same = self._terminated - earlier < _SAME_SIGNAL
        return self._level + (not is_same) if self._level >= _STOPS else _STOPS


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Receives signals in the main thread; in any other, whose signals nobody may handle, none arrive."""
    received = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, received.receive) for number in _SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
