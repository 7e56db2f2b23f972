"""The process of one job: in a process group of its own, with its own log, it dies with the sweep."""

import ctypes
import gc
import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing import parent_process
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobStatus, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mlxlab.config.check import register_resolvers
from mlxlab.errors import UserError
from mlxlab.sweep.interrupts import SIGNALS

OUTPUT = "output.log"
_PR_SET_PDEATHSIG = 1


def run(
    config: DictConfig,
    task: TaskFunction,
    callbacks: object,
    folder: Path,
    environment: dict[str, str],
) -> None:
    """Runs a composed job as Hydra does. What came of it is in its record."""
    gc.freeze()  # A collection of garbage would copy the pages of the server.
    os.setpgid(0, 0)  # A Ctrl-C in the terminal is for the sweep alone.
    _die_with_server()
    threading.Thread(target=_die_with_sweep, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.environ.clear()
    os.environ.update(environment)
    _redirect(folder / OUTPUT)
    setup_globals()
    register_resolvers()
    context = HydraContext(config_loader=ConfigLoader, callbacks=callbacks)  # type: ignore[arg-type]  # unused
    job = run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", context)
    if job.status != JobStatus.COMPLETED:
        error = job._return_value
        sys.exit(error.exit_code if isinstance(error, UserError) else 1)


def signal_group(pid: int | None, number: signal.Signals) -> None:
    """Sends a signal to the process group of a job, if there is one."""
    if pid is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, number)


def _die_with_server() -> None:
    """The kernel of Linux ends this process with the server, which ends with the sweep.

    If memory runs out, it chooses a job and not the sweep.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("500")


def _die_with_sweep() -> None:
    """Ends this process and its children with the sweep. The thread waits while MLX computes something."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)


def _redirect(path: Path) -> None:
    """Appends the output of this process and its children to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.close(file)
