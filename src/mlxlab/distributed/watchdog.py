"""Detects worker processes that exited or hang: a collective operation waits forever for a missing rank."""

import os
import sys
import threading
import time
from collections.abc import Callable

import mlx.core as mx

from mlxlab.errors import WorkerLostError

POLL_SECONDS = 0.25


class Watchdog:
    """Ends this process if another rank does not respond within `timeout` seconds.

    If a rank exits, the ring backend raises an error at once; a rank that hangs is noticed by a thread here. In both
    cases `on_worker_lost` is called before the process ends with exit code 75; it returns the end of the message.
    """

    def __init__(self, timeout: float, name: str) -> None:
        self.timeout, self.name = timeout, name
        self.on_worker_lost: Callable[[], str] = lambda: ""
        self._since: float | None = None
        threading.Thread(target=self._poll, name="watchdog", daemon=True).start()

    def evaluate(self, array: mx.array) -> None:
        """Evaluates the result of a collective; raises WorkerLostError if another process exited."""
        self._since = time.monotonic()
        try:
            mx.eval(array)
        except RuntimeError as error:
            message = f"{self.name}: another process exited ({error}){self.on_worker_lost()}"
            raise WorkerLostError(message) from None
        finally:
            self._since = None

    def _poll(self) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            since = self._since
            if since is not None and time.monotonic() - since > self.timeout:
                message = f"{self.name}: no answer from the other processes within {self.timeout:g} s"
                print(message + self.on_worker_lost(), file=sys.__stderr__, flush=True)
                os._exit(WorkerLostError.exit_code)
