"""`python -m mlxlab.sweep.launcher.fork_server DESCRIPTOR`: forks the processes of jobs.

A new interpreter that has imported what is slow to import, but not MLX, which does not survive a fork everywhere. It
reads orders from a socket and forks a process for each, in a process group of its own. The next process is forked ahead
and imports MLX while earlier jobs run. The server and all jobs end with the process at the other end of the socket.
"""

import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection

from mlxlab.sweep.launcher.job_process import serve_order
from mlxlab.sweep.launcher.messages import MAX_REPORT, Ended, Hello, Kill, Order, Started


@dataclass
class ForkedProcess:
    """A process that waits for its order or runs a job, and the socket of its order and its report."""

    pid: int
    channel: Connection


class ForkServer:
    """Serves the process at the other end of `control`."""

    def __init__(self, control: Connection, hello: Hello) -> None:
        self.control, self.hello = control, hello
        self.spare: ForkedProcess | None = None  # without an order
        self.busy: dict[int, ForkedProcess] = {}
        self.is_continued = False  # whether another job will follow the last one
        self._to_import = list(hello.preload_later)

    def serve(self) -> None:
        """Returns when the other end is closed. In a forked process it raises SystemExit."""
        reader, writer = socket.socketpair()  # a byte for each signal
        reader.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with reader, writer, selectors.DefaultSelector() as selector:
            selector.register(self.control, selectors.EVENT_READ)
            selector.register(reader, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select(0 if self._imports_next() else None)]
                if reader in ready:
                    reader.recv(4096)
                self._reap()
                if self.control in ready:
                    try:
                        message: Order | Kill = self.control.recv()
                    except (EOFError, OSError):
                        _forget_sigchld()
                        return
                    self._obey(message)
                elif self._imports_next():
                    _import(self._to_import.pop(0))
                elif self.is_continued and self.spare is None:
                    self.spare = self._fork()

    def end(self) -> None:
        """Kills all processes with their children."""
        for process in self._processes():
            _signal_group(process.pid, signal.SIGKILL)

    def _processes(self) -> list[ForkedProcess]:
        return [*self.busy.values(), *([self.spare] if self.spare else [])]

    def _obey(self, message: Order | Kill) -> None:
        if isinstance(message, Kill):
            if message.pid in self.busy:
                _signal_group(message.pid, message.signal)
            return
        process, self.spare = self.spare or self._fork(), None
        self.busy[process.pid] = process
        with suppress(OSError):  # it died before its order came; `_reap` reports it
            process.channel.send_bytes(message.payload)
        self.control.send(Started(process.pid))
        self.is_continued = message.more

    def _imports_next(self) -> bool:
        """Whether there is something to import: once the first job runs, which should not wait for it."""
        return bool(self._to_import) and self.is_continued

    def _fork(self) -> ForkedProcess:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            _forget_sigchld()
            ours.close()
            for connection in (self.control, *(process.channel for process in self._processes())):
                connection.close()
            serve_order(Connection(theirs.detach()), self.hello)
        with suppress(OSError):  # the child does it too: a signal may come before either
            os.setpgid(pid, pid)
        theirs.close()
        return ForkedProcess(pid, Connection(ours.detach()))

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            while (ended := os.wait4(-1, os.WNOHANG))[0]:
                pid, status, usage = ended
                if self.spare and pid == self.spare.pid:
                    self.spare.channel.close()
                    self.spare = None
                    continue
                process = self.busy.pop(pid)
                _signal_group(pid, signal.SIGKILL)  # children that it left behind
                unit = 1 if sys.platform == "darwin" else 1024
                code = os.waitstatus_to_exitcode(status)
                self.control.send(Ended(pid, code, usage.ru_maxrss * unit, _read_report(process.channel)))


def _forget_sigchld() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _read_report(channel: Connection) -> str:
    """What a process that has ended sent; "" if nothing."""
    with channel, suppress(OSError, EOFError):
        if channel.poll():
            return channel.recv_bytes(MAX_REPORT).decode("utf-8", "replace")
    return ""


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
