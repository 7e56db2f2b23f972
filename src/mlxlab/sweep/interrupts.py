"""Signals that a sweep receives: the first Ctrl-C starts no further job, the second one stops those that run.

SIGTERM and SIGHUP stop them at once. Once they stop, the next Ctrl-C or SIGTERM kills them.
"""

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WAITS = 1
_STOPS = 2
_KILLS = 3
_LINES = {
    _WAITS: "waiting for those that run; Ctrl-C again stops them",
    _STOPS: "stopping those that run; Ctrl-C again kills them",
    _KILLS: "killing those that run",
}
_SAME_SIGNAL = 1.0  # seconds: `timeout` sends SIGTERM to the process and again to its group


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Delays signals; a process that is started meanwhile begins with them blocked.

    Otherwise a Ctrl-C in the terminal would end the server of the jobs while it imports.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Interrupts:
    """What the signals so far ask for.

    Attributes:
        stop_signal: the first one, 0 if there was none: no further job is to be started.
    """

    def __init__(self) -> None:
        self.stop_signal = 0
        self._level = 0
        self._terminated = -_SAME_SIGNAL  # time of the latest SIGTERM
        self._handlers: dict[int, Any] = {}

    @property
    def stops_jobs(self) -> bool:
        """Whether running jobs are to save and stop."""
        return self._level >= _STOPS

    @property
    def kills_jobs(self) -> bool:
        """Whether running jobs are to end at once."""
        return self._level >= _KILLS

    def install(self) -> None:
        """Receives signals from now on; only the main thread of a process can."""
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self.receive) for number in _STOPPING}

    def uninstall(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def receive(self, number: int, _: object = None) -> None:
        before = self._level
        self.stop_signal = self.stop_signal or number
        self._level = min(self._next_level(number), _KILLS)
        if self._level != before:
            line = _LINES[self._level]
            print(f"\n{signal.Signals(number).name}: no further jobs; {line}", file=sys.stderr)

    def _next_level(self, number: int) -> int:
        if number == signal.SIGINT:
            return self._level + 1
        if number == signal.SIGTERM:
            earlier = self._terminated
            self._terminated = time.monotonic()
            is_same = self._terminated - earlier < _SAME_SIGNAL
            if self.stops_jobs and not is_same:
                return _KILLS
        return max(self._level, _STOPS)
