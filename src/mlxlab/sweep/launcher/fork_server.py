"""`python -m mlxlab.sweep.launcher.fork_server DESCRIPTOR`: forks the processes of jobs.

A new interpreter that has imported what is slow to import, but not MLX, which does not survive a fork everywhere. It
reads orders from a socket and gives each to a process whose last job has ended well, or forks one, in a process group
of its own. If each process is to run one job, the next one is forked ahead and imports MLX while earlier jobs run. The
server and all jobs end with the process at the other end of the socket.
"""

import os
import pickle
import selectors
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection

from mlxlab.sweep.launcher.job_process import serve_orders
from mlxlab.sweep.launcher.messages import Ended, Hello, Idle, Kill, Order, Reported, Started

_SECONDS_TO_EXIT = 5.0  # for processes without a job


@dataclass
class ForkedProcess:
    """A process that waits for an order or runs a job, and the socket of its orders and its reports."""

    pid: int
    channel: Connection
    order: int | None = None
    reported: Reported | None = None
    is_signalled: bool = False


class ForkServer:
    """Serves the process at the other end of `control`."""

    def __init__(self, control: Connection, hello: Hello) -> None:
        self.control, self.hello = control, hello
        self.processes: dict[int, ForkedProcess] = {}  # by id
        self.is_continued = False  # whether another job will follow the last one
        self._to_import = list(hello.preload_later)
        self._selector = selectors.DefaultSelector()

    def serve(self) -> None:
        """Returns when the other end is closed. In a forked process it raises SystemExit."""
        reader, writer = socket.socketpair()  # a byte for each signal
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with reader, writer, self._selector:
            self._selector.register(self.control, selectors.EVENT_READ)
            self._selector.register(reader, selectors.EVENT_READ)
            while True:
                ready = [
                    key for key, _ in self._selector.select(0 if self._imports_next() else None)
                ]
                for key in ready:
                    if isinstance(key.data, ForkedProcess):
                        self._read(key.data)
                    elif key.fileobj is reader:
                        reader.recv(4096)
                self._reap()
                if any(key.fileobj is self.control for key in ready):
                    try:
                        message: Order | Kill = self.control.recv()
                    except (EOFError, OSError):
                        _forget_sigchld()
                        return
                    self._obey(message)
                elif self._imports_next():
                    _import(self._to_import.pop(0))
                elif self._forks_ahead and self._idle() is None:
                    self._fork()

    def end(self) -> None:
        """Kills jobs with their children. Other processes exit, so that what libraries registered for that runs."""
        for process in self.processes.values():
            process.channel.close()
            if process.order is not None:
                _signal_group(process.pid, signal.SIGKILL)
        until = time.monotonic() + _SECONDS_TO_EXIT
        with suppress(ChildProcessError):
            while time.monotonic() < until:
                if not os.waitpid(-1, os.WNOHANG)[0]:
                    time.sleep(0.005)
        for pid in self.processes:
            _signal_group(pid, signal.SIGKILL)

    def _idle(self) -> ForkedProcess | None:
        return next((process for process in self.processes.values() if process.order is None), None)

    def _obey(self, message: Order | Kill) -> None:
        if isinstance(message, Kill):
            for process in self.processes.values():
                if process.order == message.number:
                    process.is_signalled = True
                    _signal_group(process.pid, message.signal)
            return
        process = self._idle() or self._fork()
        process.order = message.number
        with suppress(OSError):  # it died before its order came; `_reap` reports it
            process.channel.send_bytes(message.payload)
        self.control.send(Started(message.number, process.pid))
        self.is_continued = message.more

    @property
    def _forks_ahead(self) -> bool:
        return self.is_continued and self.hello.jobs_per_process == 1

    def _imports_next(self) -> bool:
        """Whether there is something to import: once the first job runs, which should not wait for it."""
        return bool(self._to_import) and self._forks_ahead

    def _fork(self) -> ForkedProcess:
        parent_end, child_end = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            _forget_sigchld()
            parent_end.close()
            self._selector.close()
            for connection in (
                self.control,
                *(process.channel for process in self.processes.values()),
            ):
                connection.close()
            serve_orders(Connection(child_end.detach()), self.hello)
        with suppress(OSError):  # the child does it too: a signal may come before either
            os.setpgid(pid, pid)
        child_end.close()
        process = self.processes[pid] = ForkedProcess(pid, Connection(parent_end.detach()))
        self._selector.register(process.channel, selectors.EVENT_READ, process)
        return process

    def _read(self, process: ForkedProcess) -> bool:
        """Receives a message of a process; False if there will be no further one."""
        try:
            message: Reported | Idle = process.channel.recv()
        except (EOFError, OSError, pickle.UnpicklingError):  # `_reap` follows
            with suppress(KeyError):
                self._selector.unregister(process.channel)
            return False
        if isinstance(message, Reported):
            process.reported = message
        else:
            self._release(process)
        return True

    def _release(self, process: ForkedProcess) -> None:
        """The job of a process has ended, and it can run another one."""
        self._send_end(process, 0, 0)
        process.order, process.reported = None, None
        if process.is_signalled or not self.is_continued:
            self._forget(process)

    def _forget(self, process: ForkedProcess) -> None:
        """Closes its socket, at which it exits if it has not."""
        with suppress(KeyError):
            self._selector.unregister(process.channel)
        process.channel.close()
        del self.processes[process.pid]

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.wait4(-1, os.WNOHANG))[0]:
                pid, status, usage = ended
                if (process := self.processes.get(pid)) is None:
                    continue
                _signal_group(pid, signal.SIGKILL)  # children that it left behind
                with suppress(OSError):
                    while (
                        process.order is not None and process.channel.poll() and self._read(process)
                    ):
                        pass
                if process.order is not None:
                    unit = 1 if sys.platform == "darwin" else 1024
                    self._send_end(
                        process, os.waitstatus_to_exitcode(status), usage.ru_maxrss * unit
                    )
                if pid in self.processes:
                    self._forget(process)

    def _send_end(self, process: ForkedProcess, exit_code: int, peak_bytes: int) -> None:
        assert process.order is not None
        reported = process.reported or Reported("", peak_bytes)
        self.control.send(Ended(process.order, exit_code, reported.peak_bytes, reported.report))


def _forget_sigchld() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _signal_group(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _import(module: str) -> None:
    with suppress(ImportError):
        import_module(module)


def main() -> None:
    """Serves until the other end of the socket is closed."""
    control, owner = Connection(int(sys.argv[1])), os.getpid()
    hello: Hello = control.recv()
    sys.path[:], sys.argv[:] = hello.sys_path, hello.argv
    for module in hello.preload:
        _import(module)
    server = ForkServer(control, hello)
    try:
        server.serve()
    finally:
        if os.getpid() == owner:
            server.end()


if __name__ == "__main__":
    main()
