"""Starts a module of mlxlab in a process that outlives this one and gets none of its signals."""

import os
import signal
import sys
from pathlib import Path

_LOG_FLAGS = (
    os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
)  # a pipe fails, and does not hang


def start_detached(module: str, environment: dict[str, str], log: Path) -> None:
    """Runs `python -m module` with additional variables; its output is appended to `log`. Raises OSError."""
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", module],
        module_environment() | environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), _LOG_FLAGS, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        # A trainer blocks signals before MLX starts its threads, and its children would inherit that.
        setsigmask=(),
        setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE),
    )


def module_environment() -> dict[str, str]:
    """The environment in which Python finds this package, wherever it was started."""
    package = Path(__file__).resolve().parents[2]
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
