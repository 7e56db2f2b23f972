"""Messages of `mlxlab` loggers, on standard error."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    redirect_stderr,
    redirect_stdout,
    suppress,
)
from typing import TextIO, cast

from mlxlab.progress import activity
from mlxlab.redact import redact
from mlxlab.terminal import is_terminal

logger = logging.getLogger(__name__)


class StderrHandler(logging.Handler):
    """Messages on the current `sys.stderr`, each on a line of its own, above the progress bar if there is one.

    One that cannot be written, on a full disk or a closed pipe, is lost.
    """

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError), _without_bar():
            print(redact(self.format(record)), file=sys.stderr, flush=True)


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
            return self._discard(len(text))

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._discard()

    def _discard(self, length: int = 0) -> int:
        """Sends the rest, and what is in the buffer, to nowhere."""
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, self._stream.fileno())
        os.close(devnull)
        return length


@contextmanager
def survives_closed_pipes() -> Iterator[None]:
    """A reader of standard output or error that ends, as in `| head`, does not end what is inside."""
    streams = [
        cast(TextIO, _ClosablePipe(stream)) if stream else stream
        for stream in (sys.stdout, sys.stderr)
    ]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        yield


def configure_logging() -> None:
    """Sends the messages of `mlxlab` loggers, from level INFO, to stderr."""
    logger = logging.getLogger("mlxlab")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, StderrHandler) for handler in logger.handlers):
        logger.addHandler(StderrHandler())


def announce(text: str) -> AbstractContextManager[object]:
    """Says what a program does: at once on a terminal, elsewhere if it takes long until what is inside has ended.

    Call it before anything heavy is imported.
    """
    if not is_terminal(sys.stderr):
        return activity(text, since=time.monotonic())
    logger.info(f"{text} ...")
    return nullcontext()
