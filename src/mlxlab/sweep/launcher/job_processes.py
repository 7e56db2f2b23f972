"""The processes of jobs, as the sweep sees them: started and signalled through the fork server."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection

from mlxlab.sweep.launcher.messages import Ended, Hello, Kill, Order, Started

_SECONDS_TO_END = 10.0  # for the server, once its socket is closed


class JobProcesses:
    """Starts a server with the first job, and again after one that was killed."""

    def __init__(self, hello: Hello) -> None:
        self.hello = hello
        self._server: subprocess.Popen[bytes] | None = None
        self._control: Connection
        self._num_orders = 0
        self._running: dict[int, int] = {}  # number of an order -> id of its process
        self._ended: deque[Ended] = deque()

    def start(self, payload: bytes, *, more: bool) -> Started:
        """Starts a job in a new process, or in one whose last job has ended."""
        self._num_orders += 1
        for _ in range(3):
            try:
                self._open()
                self._control.send(Order(self._num_orders, payload, more))
                while True:
                    answer: Started | Ended = self._control.recv()
                    if isinstance(answer, Started):
                        self._running[answer.number] = answer.pid
                        return answer
                    self._add(answer)
            except (EOFError, OSError):
                self._lose_server()
        raise OSError("the server that forks the processes of jobs cannot be started")

    def signal(self, number: int, signal_number: signal.Signals) -> None:
        """Sends a signal to the process of an order and its children, if the job has not ended."""
        with suppress(OSError):
            self._control.send(Kill(number, signal_number))

    def wait(self, seconds: float) -> Ended | None:
        """The next job that ends; None if none does within `seconds`."""
        if not self._ended and self._server is None:
            time.sleep(seconds)
        elif not self._ended:
            try:
                if self._control.poll(seconds):
                    self._add(self._control.recv())
            except (EOFError, OSError):
                self._lose_server()
        return self._ended.popleft() if self._ended else None

    def close(self) -> None:
        """Ends the server, and with it all processes."""
        if self._server is not None:
            self._control.close()
            try:
                self._server.wait(_SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            self._server = None

    def _add(self, ended: Ended) -> None:
        self._running.pop(ended.number, None)
        self._ended.append(ended)

    def _open(self) -> None:
        if self._server is not None:
            return
        parent_end, child_end = socket.socketpair()
        command = [
            sys.executable,
            "-P",
            "-m",
            "mlxlab.sweep.launcher.fork_server",
            str(child_end.fileno()),
        ]
        path = os.pathsep.join(filter(None, sys.path))
        with child_end:
            self._server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[child_end.fileno()],
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # signals of the terminal are for the sweep alone
            )
        self._control = Connection(parent_end.detach())
        self._control.send(self.hello)

    def _lose_server(self) -> None:
        """The server was killed: its processes too, where the kernel has not done that."""
        assert self._server is not None
        for number, pid in self._running.items():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            self._ended.append(Ended(number, -signal.SIGKILL, 0, ""))
        self._running.clear()
        self._server.kill()
        self._server.wait()
        self._control.close()
        self._server = None
