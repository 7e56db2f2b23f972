"""Runs commands and scripts in processes forked from one that has imported everything: a start takes tenths of a second.

Not on a Mac: Metal does not survive a fork.
"""

import atexit
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import import_module
from multiprocessing import current_process, get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from mlxlab.tracking import queue
from mlxlab.tracking.queue import LOCK, LOG, VARIABLE, Queue

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent


class ForkedProcess:
    """A process that calls the `main` of a module, used like a `subprocess.Popen` whose output is piped text.

    Args:
        args: its `sys.argv`.
    """

    def __init__(
        self,
        module: str,
        args: Sequence[str],
        environment: dict[str, str],
        folder: Path | None = None,
    ) -> None:
        self.args = list(args)
        descriptors = [tempfile.mkstemp(dir=_folder()) for _ in ("stdout", "stderr")]
        for descriptor, _ in descriptors:
            os.close(descriptor)
        self._files = [Path(path) for _, path in descriptors]
        self._process = _start(module, self.args, environment, self._files, folder)
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        out, err = (path.read_text() for path in self._files)
        return out, err

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def _folder() -> str:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return folder.name


@cache
def _context() -> ForkServerContext:
    context = get_context("forkserver")
    context.set_forkserver_preload(["support.preloaded"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(ROOT / "src"), str(TESTS), before])
    )
    try:
        ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    return context


@cache
def start_server() -> None:
    """Starts the server and waits for it, so that no test measures its imports.

    The server itself ignores a module that it cannot import.
    """
    process = fork(import_module, "support.preloaded")
    process.join()
    assert process.exitcode == 0


def fork_uploader(waiting: Queue) -> bool:
    """What `queue.start_uploading` does, by a fork."""
    if waiting.is_locked(LOCK):
        return False
    waiting.set_faults({})
    log = waiting.folder / LOG
    environment = os.environ | {VARIABLE: queue.dump(waiting)}
    _start(queue.MODULE, ["upload.py"], environment, [log, log], detached=True)
    return True


def _start(
    module: str,
    argv: list[str],
    environment: dict[str, str],
    outputs: list[Path],
    folder: Path | None = None,
    *,
    detached: bool = False,
) -> BaseProcess:
    started_in = folder or Path.cwd()
    return fork(_live, module, argv, dict(environment), outputs, started_in, detached)


def fork(function: Callable[..., object], *args: Any) -> BaseProcess:
    """Calls a function in a process that is forked from the server."""
    process = _context().Process(target=function, args=args, daemon=True)
    process.start()
    return process


def _live(
    module: str,
    argv: list[str],
    environment: dict[str, str],
    outputs: list[Path],
    folder: Path,
    detached: bool,
) -> None:
    """The forked process: as `python -m <module>`."""
    current_process().daemon = False  # A daemon could not start the jobs of a sweep.
    os.chdir(folder)
    if detached:
        os.setsid()
    for descriptor, path in enumerate(outputs, 1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = argv
    if not detached and "tracking=none" not in argv:
        _fork_spare(environment)
    code = import_module(module).main()
    atexit._run_exitfuncs()
    sys.exit(code)


def _fork_spare(environment: dict[str, str]) -> None:
    """A process that forks the uploaders of a run: the run itself cannot, once MLX has started threads."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(reader)
        queue.start_uploading = partial(_order_uploader, writer)
        return
    os.close(writer)
    with open(reader) as orders:
        for order in orders:
            if os.fork() == 0:
                log = queue.load(order).folder / LOG
                variables = environment | {VARIABLE: order}
                outputs, folder = [log, log], Path.cwd()
                _live(queue.MODULE, ["upload.py"], variables, outputs, folder, detached=True)
    os._exit(0)


def _order_uploader(writer: int, waiting: Queue) -> bool:
    if waiting.is_locked(LOCK):
        return False
    waiting.set_faults({})
    os.write(writer, f"{queue.dump(waiting)}\n".encode())
    return True
