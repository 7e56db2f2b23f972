"""Keeps the output of runs out of the terminal."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path


@contextmanager
def output_to_file(path: Path) -> Iterator[Callable[[str], None]]:
    """Appends the output of this process and its children to a file; yields what shows a line all the same."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    try:
        is_terminal = sys.stderr is sys.__stderr__  # not replaced, as by a notebook
        shown = os.fdopen(os.dup(2), "w") if is_terminal else sys.stderr

        def show(line: str) -> None:
            with suppress(OSError):
                print(line, file=shown, flush=True)

        with path.open("a", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
            yield show
        if is_terminal:
            shown.close()
    finally:
        for descriptor, before in enumerate(saved, 1):
            os.dup2(before, descriptor)
            os.close(before)
