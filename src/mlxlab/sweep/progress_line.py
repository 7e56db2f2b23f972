"""A line of the terminal that says what the running jobs of a sweep do, rewritten every second."""

import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from mlxlab import terminal
from mlxlab.config.issues import one_line
from mlxlab.sweep.child import OUTPUT

_SECONDS = 1.0
_TAIL = 1000  # bytes of an output file that are read
_CLEAR = "\x1b[2K\r"


@contextmanager
def progress_line(running: Mapping[int, Path]) -> Iterator[None]:
    """Shows the last line that each running job printed. Does nothing where standard error is no terminal.

    Args:
        running: the folders of jobs by number; it may change.
    """
    if not terminal.is_terminal(sys.stderr):
        yield
        return
    ended = threading.Event()

    def show() -> None:
        while not ended.wait(_SECONDS):
            width = terminal.columns(sys.stderr) or terminal.DEFAULT_COLUMNS
            sys.stderr.write(_CLEAR + describe(running)[: width - 1] + "\r")
            sys.stderr.flush()

    def clear(_: logging.LogRecord) -> bool:  # messages begin on an empty line
        sys.stderr.write(_CLEAR)
        return True

    handlers, thread = (
        list(logging.getLogger("mlxlab").handlers),
        threading.Thread(target=show, daemon=True),
    )
    for handler in handlers:
        handler.addFilter(clear)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        for handler in handlers:
            handler.removeFilter(clear)
        sys.stderr.write(_CLEAR)


def describe(running: Mapping[int, Path]) -> str:
    """`job 3: step 20/50  train/loss 0.6640 | job 4: ...`."""
    return " | ".join(
        f"job {number}: {_last_line(folder / OUTPUT)}" for number, folder in dict(running).items()
    )


def _last_line(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _TAIL))
        lines = [
            line
            for line in file.read(_TAIL).decode("utf-8", "replace").splitlines()
            if line.strip()
        ]
        return one_line(lines[-1], 200) if lines else ""
    return ""
