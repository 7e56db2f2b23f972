"""Signals: received at once by a thread of their own, acted on after the current step or micro-batch.

A Python handler does not run while MLX evaluates (delays of minutes were measured), so the signals are blocked in every
thread and one thread receives them with `sigwait`. Threads inherit the mask, so `SignalHandler.start` must precede the
import of MLX.
"""

import _thread
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from mlxlab.checkpoint.names import can_resume
from mlxlab.errors import RunInterrupted
from mlxlab.terminal.messages import log_lines
from mlxlab.terminal.program import in_notebook, resume_command

if TYPE_CHECKING:
    from mlxlab.training.callback import Control

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CAUGHT = (*STOP_SIGNALS, signal.SIGUSR1)
# It makes the main thread raise; nobody sends it, and by default it does nothing.
RAISE = signal.SIGURG
REPORT_SECONDS = 8.0  # less than the 10 s after which `docker stop` kills
RETRY_SECONDS = 0.02  # the pause before the next attempt to end the preparation


class _PreparationStopped(KeyboardInterrupt):
    """A RunInterrupted on its way through libraries and through code that catches every `Exception`."""


class SignalHandler:
    """Stops the run on SIGTERM, SIGINT or SIGHUP, saves on SIGUSR1; a second SIGINT ends the process at once.

    A run whose training had ended before the signal has some seconds to finish its report, unless others follow it.

    In a notebook a second SIGINT raises KeyboardInterrupt instead. Outside the main thread signals are not received.

    Args:
        requeue: under SLURM, put the job back into the queue when a signal other than Ctrl-C stopped it.

    Attributes:
        ends_preparation: a stop signal before `attach` raises an exception in the main thread, after an import that
            is in progress, which `as_run_interrupted` turns into RunInterrupted: nothing is lost.
        run_dir: of a run whose command is printed if it is ended at once.
    """

    def __init__(self, requeue: bool) -> None:
        self.requeue = requeue
        self.may_finish_report = False
        self.received: list[int] = []
        self.control: Control | None = None
        self.run_dir: Path | None = None
        self._stopped_at = 0.0  # when the first signal arrived that asks to stop
        self.ends_preparation = False
        self._closed = False
        self._is_active = False

    def start(self) -> None:
        """Call before MLX is imported."""
        # No other thread may set handlers.
        self._is_active = threading.current_thread() is threading.main_thread()
        if not self._is_active:
            return
        # A handler too, for signals delivered to a thread made before the mask was set: the default ends the process.
        self._handlers = {number: signal.signal(number, self._in_main_thread) for number in CAUGHT}
        self._handlers[RAISE] = signal.signal(RAISE, self._raise_in_main_thread)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
        self._thread = threading.Thread(target=self._wait, name="signals", daemon=True)
        self._thread.start()

    def stop(self, ignore: bool = False) -> None:
        """Restores handlers and mask; with `ignore`, signals no longer end the process."""
        if not self._is_active:
            return
        self._closed = True
        signal.pthread_kill(self._thread.ident or 0, signal.SIGUSR1)
        self._thread.join()
        if ignore:
            self._handlers |= dict.fromkeys(CAUGHT, signal.SIG_IGN)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def requeue_job(self) -> None:
        """Requeues the SLURM job if the config says so, and logs whether that worked."""
        job = os.environ.get("SLURM_JOB_ID")
        if not (self.requeue and job and self.stop_signal not in (0, signal.SIGINT)):
            return
        try:
            subprocess.run(
                ["scontrol", "requeue", job], check=True, capture_output=True, timeout=30
            )
        except (OSError, subprocess.SubprocessError) as error:
            log_lines(f"SLURM job {job} could not be requeued: {error}")
        else:
            log_lines(f"SLURM job {job} is back in the queue")

    @property
    def stop_signal(self) -> int:
        """The first signal that asks to stop, 0 if none does."""
        return next((number for number in self.received if number in STOP_SIGNALS), 0)

    @property
    def report_stop_signal(self) -> int:
        """`stop_signal`, for the report of a run whose training has ended: 0 while there is time to finish it."""
        in_time = self.may_finish_report and time.monotonic() - self._stopped_at < REPORT_SECONDS
        return 0 if in_time else self.stop_signal

    def attach(self, control: "Control") -> None:
        """Passes signals to the training loop, including those received so far."""
        self.control = control
        self._notify()

    def _wait(self) -> None:
        while True:
            number = signal.sigwait(CAUGHT)
            if self._closed:
                return
            self._receive(number)
            self._end_preparation()

    def _end_preparation(self) -> None:
        """Interrupts the main thread until it has raised, or until another signal is to be received."""
        while self._is_preparing and signal.sigpending().isdisjoint(CAUGHT):
            _thread.interrupt_main(RAISE)  # It calls `_raise_in_main_thread` there.
            time.sleep(RETRY_SECONDS)

    def _in_main_thread(self, number: int, frame: FrameType | None) -> None:
        self._receive(number, in_main_thread=True)
        self._raise_in_main_thread(number, frame)
        # The thread wakes and tries again; nothing is saved before the first step.
        if self._is_preparing:
            signal.pthread_kill(self._thread.ident or 0, signal.SIGUSR1)

    def _raise_in_main_thread(self, _number: int, frame: FrameType | None) -> None:
        if self._is_preparing and not _is_importing(frame):
            self.ends_preparation = False  # It raises once.
            raise _PreparationStopped

    def _receive(self, number: int, *, in_main_thread: bool = False) -> None:
        if number == signal.SIGINT and signal.SIGINT in self.received:
            self._end_at_once(in_main_thread=in_main_thread)
            return
        if number in STOP_SIGNALS and not self.stop_signal:
            self._stopped_at = time.monotonic()
        self.received.append(number)
        if number in STOP_SIGNALS and self.received.count(number) == 1:
            self._announce(number)
        self._notify()

    def _announce(self, number: int) -> None:
        task = "finishing the current step, then saving"
        if self._is_preparing:
            task = "ending before the first step"
        elif self.may_finish_report and self.control is not None and self.control.stop_reason:
            task = "training has ended, finishing the report"
        again = "Ctrl-C again" if number == signal.SIGINT else "Ctrl-C"
        print(f"\n{signal.Signals(number).name}: {task}; {again} ends at once", file=sys.stderr)

    @property
    def _is_preparing(self) -> bool:
        return self.ends_preparation and self.control is None and self.stop_signal != 0

    @contextmanager
    def as_run_interrupted(self) -> Iterator[None]:
        """Raises RunInterrupted where a signal ended the preparation."""
        try:
            yield
        except _PreparationStopped:
            raise RunInterrupted(
                "stopped before the first step; nothing was trained, the same command begins again",
                self.stop_signal,
            ) from None

    def _end_at_once(self, *, in_main_thread: bool) -> None:
        if not in_notebook():
            if self.run_dir is not None and can_resume(self.run_dir):
                print(
                    f"ended at once; continue it with: {resume_command(self.run_dir)}",
                    file=sys.stderr,
                    flush=True,
                )
            os._exit(130)
        if in_main_thread:
            raise KeyboardInterrupt
        _thread.interrupt_main()  # It calls `_receive` there.

    def _notify(self) -> None:
        control = self.control
        if control is None:
            return
        control.save_requested = control.save_requested or signal.SIGUSR1 in self.received
        self.received = [number for number in self.received if number != signal.SIGUSR1]
        if self.stop_signal and not control.stop_reason:
            control.stop_signal = self.stop_signal


def _is_importing(frame: FrameType | None) -> bool:
    """Whether an import is in progress: the C++ code of an extension that begins aborts on a Python exception."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
