"""Signals that a sweep receives: the first Ctrl-C starts no further job, the second one stops those that run."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """The signals so far."""

    def __init__(self) -> None:
        self.received: list[signal.Signals] = []

    @property
    def stop_signal(self) -> int:
        """The first one, 0 if there was none: no further job is to be started."""
        return self.received[0] if self.received else 0

    @property
    def stops_jobs(self) -> bool:
        """Whether running jobs are to save and stop."""
        return len(self.received) > 1 or self.stop_signal in (signal.SIGTERM, signal.SIGHUP)

    @property
    def kills_jobs(self) -> bool:
        """Whether running jobs are to end at once."""
        return self.received.count(signal.SIGINT) > 2

    def receive(self, number: int, _: object = None) -> None:
        self.received.append(signal.Signals(number))
        kind = "killing" if self.kills_jobs else "stopping" if self.stops_jobs else "waiting for"
        hint = "" if self.kills_jobs else "; Ctrl-C again " + ("kills them" if self.stops_jobs else "stops them")
        print(f"\n{signal.Signals(number).name}: no further jobs; {kind} those that run{hint}", file=sys.stderr)


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
