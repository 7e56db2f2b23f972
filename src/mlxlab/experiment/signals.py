"""Signals: noticed at once by a thread that waits for nothing else, obeyed at the next step.

A Python handler does not run while MLX evaluates (minutes late was measured), so the signals are blocked in every
thread and one thread takes them with `sigwait`. Threads inherit the mask: `SignalHandler.start` precedes MLX's import.
"""

import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlxlab.training.context import Control

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CAUGHT = (*STOPPING, signal.SIGUSR1)


class SignalHandler:
    """Takes SIGTERM, SIGINT and SIGHUP as a wish to stop, SIGUSR1 as a wish to save; a second SIGINT ends at once.

    Args:
        requeue: under SLURM, put the job back into the queue when a signal other than Ctrl-C stopped it.
    """

    def __init__(self, requeue: bool) -> None:
        self.requeue = requeue
        self.received: list[int] = []
        self.control: Control | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self) -> None:
        """In the main thread, before MLX is imported."""
        self._handlers = {number: signal.signal(number, self._handle) for number in CAUGHT}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
        self._thread = threading.Thread(target=self._wait, name="signals", daemon=True)
        self._thread.start()

    def stop(self, ignore: bool = False) -> None:
        """Restores handlers and mask; with `ignore`, signals no longer end the process."""
        if self._thread is None:
            return
        self._closed = True
        signal.pthread_kill(self._thread.ident or 0, signal.SIGUSR1)
        self._thread.join()
        self._thread = None
        for number, handler in self._handlers.items():
            signal.signal(number, signal.SIG_IGN if ignore else handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def put_back(self) -> str:
        """Requeues the SLURM job if that was asked for; returns what happened, "" for nothing."""
        job = os.environ.get("SLURM_JOB_ID")
        if not (self.requeue and job and self.stopping and self.stopping != signal.SIGINT):
            return ""
        try:
            subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, timeout=30)
        except (OSError, subprocess.SubprocessError) as error:
            return f"SLURM job {job} could not be requeued: {error}"
        return f"SLURM job {job} is back in the queue"

    @property
    def stopping(self) -> int:
        """The signal that asked to stop, 0 if none did."""
        return next((number for number in self.received if number in STOPPING), 0)

    def watch(self, control: "Control") -> None:
        """Passes signals on to the training loop from now on, including one that has already arrived."""
        self.control = control
        self._tell()

    def _wait(self) -> None:
        while True:
            number = signal.sigwait(CAUGHT)
            if self._closed:
                return
            self._take(number)

    def _handle(self, number: int, _frame: object) -> None:
        """A thread made before the mask was set got it: rare, but then the default would end the process."""
        self._take(number)

    def _take(self, number: int) -> None:
        if number == signal.SIGINT and signal.SIGINT in self.received:
            os._exit(130)
        self.received.append(number)
        if number in STOPPING and self.received.count(number) == 1:
            name = signal.Signals(number).name
            print(f"\n{name}: finishing the present step, then saving; Ctrl-C again ends at once", file=sys.stderr)
        self._tell()

    def _tell(self) -> None:
        control = self.control
        if control is None:
            return
        control.save_requested = control.save_requested or signal.SIGUSR1 in self.received
        self.received = [number for number in self.received if number != signal.SIGUSR1]
        if self.stopping and not control.stop_reason:
            control.stop_signal = self.stopping
