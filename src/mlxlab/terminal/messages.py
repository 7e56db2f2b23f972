"""Messages of `mlxlab` loggers, on standard error, also on what takes long: one line after some seconds, then one every
half minute, so that a terminal, a pipe and a log file get the same.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO, TypeVar

from mlxlab.terminal import is_terminal
from mlxlab.terminal.redact import redact

FIRST_SECONDS = 3.0  # A program that is quicker says nothing about what it does.
LINE_SECONDS = 30.0

T = TypeVar("T")
logger = logging.getLogger(__name__)


def log_lines(*lines: str) -> None:
    """Logs lines for the user, which go to standard error; results go to standard output."""
    for line in lines:
        logger.info(line)


class StderrHandler(logging.Handler):
    """Messages on the current `sys.stderr`, each on a line of its own, above the progress bar if there is one.

    One that cannot be written, on a full disk or a closed pipe, is lost.
    """

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError), _without_bar():
            print(redact(self.format(record)), file=sys.stderr, flush=True)


class LogFile(logging.FileHandler):
    """Messages in a file; one that cannot be written, on a full disk, is lost.

    `earlier_bytes` are those of earlier processes.
    """

    earlier_bytes: int | None = None

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        if self.earlier_bytes is None:
            self.earlier_bytes = os.fstat(stream.fileno()).st_size
        return stream

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None: ...


def set_aside_log(path: Path, target: Path) -> None:
    """Moves the messages of earlier processes from a log into another file, those of this one stay."""
    if not path.is_file():
        return
    logs = [each for each in logging.root.handlers if isinstance(each, LogFile)]
    log = next((each for each in logs if Path(each.baseFilename) == path.absolute()), None)
    if log is None or log.earlier_bytes is None:
        path.rename(target)
        return
    log.acquire()
    try:
        content = path.read_bytes()
        target.write_bytes(content[: log.earlier_bytes])
        path.write_bytes(content[log.earlier_bytes :])  # The log appends to the same file.
        log.earlier_bytes = 0
    finally:
        log.release()


def _without_bar() -> AbstractContextManager[object]:
    """Clears the progress bars, and draws them again. tqdm is not imported for it: without it there is no bar."""
    module = sys.modules.get("tqdm")
    bar = getattr(module, "tqdm", None)  # None also while it is being imported
    if bar is None or not getattr(bar, "_instances", None):
        return nullcontext()
    return bar.external_write_mode(sys.stderr)


class _ClosablePipe:
    """A stream that loses what is written after its reader has gone, as `head` does."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._discard()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard()

    def _discard(self) -> None:
        """Sends the rest, and what is in the buffer, to nowhere."""
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, self._stream.fileno())
        os.close(devnull)


@contextmanager
def survives_closed_pipes() -> Iterator[None]:
    """A reader of standard output or error that ends, as in `| head`, does not end what is inside."""
    output: Any = sys.stdout and _ClosablePipe(sys.stdout)
    errors: Any = sys.stderr and _ClosablePipe(sys.stderr)
    with redirect_stdout(output), redirect_stderr(errors):
        yield


def configure_logging(level: int = logging.INFO) -> None:
    """Sends the messages of `mlxlab` loggers, from this level on, to stderr."""
    logger = logging.getLogger("mlxlab")
    logger.setLevel(level)
    handlers = [*logger.handlers, *logging.root.handlers]
    if not any(isinstance(handler, StderrHandler) for handler in handlers):
        logger.addHandler(StderrHandler())


@contextmanager
def handlers_restored() -> Iterator[None]:
    """Closes the handlers that are installed inside, such as Hydra's, and brings back those of before."""
    loggers = [logging.root, logging.getLogger("mlxlab")]
    before = [list(logger.handlers) for logger in loggers]
    try:
        yield
    finally:
        for logger, handlers in zip(loggers, before, strict=True):
            for handler in logger.handlers:
                if handler not in handlers:
                    handler.close()
            logger.handlers = handlers


def announce(text: str) -> AbstractContextManager[object]:
    """Says what a program does: at once on a terminal, elsewhere if it takes long until what is inside has ended.

    Call it before anything heavy is imported.
    """
    if not is_terminal(sys.stderr):
        return activity(text, since=time.monotonic())
    logger.info(f"{text} ...")
    return nullcontext()


@contextmanager
def activity(text: str, *, since: float | None = None) -> Iterator[None]:
    """Logs `text` if what is inside takes long, the time so far, and that it is done if there were several lines.

    By a thread, as C++ does not return to Python.

    Args:
        since: when it began, in the time of `time.monotonic`; None is now.
    """
    ended = threading.Event()
    start = time.monotonic() if since is None else since

    def report() -> None:
        wait = max(0.0, start + FIRST_SECONDS - time.monotonic())
        is_first = True
        while not ended.wait(wait):
            elapsed = time.monotonic() - start
            logger.info(f"{text} ..." if is_first else f"{text} ... {duration(elapsed)} so far")
            wait = LINE_SECONDS
            is_first = False

    thread = threading.Thread(target=report, name="activity", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if (elapsed := time.monotonic() - start) > LINE_SECONDS:
        logger.info(f"{text}: done after {duration(elapsed)}")


def track(
    items: Iterable[T], text: str, total: int | None = None, *, at_most: bool = False
) -> Iterator[T]:
    """Yields the items and logs how many are done; with a known `total`, or one that is `at_most`, also the time left."""
    start = time.monotonic()
    due = FIRST_SECONDS
    for done, item in enumerate(items):
        elapsed = time.monotonic() - start
        if done and elapsed >= due:
            due = elapsed + LINE_SECONDS
            line = f"{text}: {done}"
            if total and total > done:
                left = duration(elapsed * (total - done) / done)
                whole = f"at most {total}" if at_most else str(total)
                line += f" of {whole}, ETA {left}"
            logger.info(line)
        yield item


def duration(seconds: float) -> str:
    """h:mm:ss."""
    minutes, remainder = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{remainder:02d}"
