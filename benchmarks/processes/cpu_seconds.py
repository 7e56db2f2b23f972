"""CPU seconds of a command and of all the processes that it starts."""

import ctypes
import os
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Makes processes that outlive their parents children of this one, so that their time is counted (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def cpu_seconds(folder: Path, *args: str, path: tuple[Path, ...] = ()) -> float:
    """CPU seconds of `python ARGS` in a folder and of all that it starts, also of what outlives it for a moment.

    Args:
        path: where Python looks for modules.

    Raises:
        RuntimeError: the command fails.
    """
    before = _children_seconds()
    done = subprocess.run(
        [sys.executable, *args],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:] or done.stdout[-2000:])
    with suppress(ChildProcessError):
        while True:
            os.wait()
    return _children_seconds() - before


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
