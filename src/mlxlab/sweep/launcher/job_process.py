"""A process forked for jobs: it imports MLX, waits for an order, runs the job, sends its report, and waits again."""

import ctypes
import itertools
import json
import math
import os
import pickle
import signal
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mlxlab.backend.machine_memory import peak_memory, reset_peak
from mlxlab.sweep.launcher.messages import Hello, Idle, Reported
from mlxlab.sweep.launcher.process_state import ProcessState
from mlxlab.training.stop_rule import VARIABLE

if TYPE_CHECKING:
    from mlxlab.sweep.launcher.job_run import HydraJob, Report

_PR_SET_PDEATHSIG = 1
_CAUGHT = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@dataclass(frozen=True)
class JobOrder:
    """A job and its surroundings; its output goes to the file `output`."""

    job: "HydraJob"
    environment: dict[str, str]
    cwd: str
    output: str


def serve_orders(channel: Connection, hello: Hello) -> NoReturn:
    """Runs one job after another, until there is none or this process is not as it was before the first."""
    os.setpgid(0, 0)
    _die_with_parent()
    _prepare(hello.modules)
    state = ProcessState.capture()
    for count in itertools.count(1):
        try:
            order: JobOrder = pickle.loads(channel.recv_bytes())
        except (EOFError, OSError):
            sys.exit(0)  # there is no further job
        reset_peak()
        report = _run(order)
        channel.send(Reported(json.dumps(asdict(report)), peak_memory()))
        is_clean = (
            report.exit_code == 0
            and math.isfinite(report.value or 0.0)
            and not _sets_environment(order)
        )
        del order  # and with it what the job refers to
        if not is_clean or count == hello.jobs_per_process or not state.restore():
            sys.exit(report.exit_code)
        channel.send(Idle())
    raise AssertionError("endless")


def _run(order: JobOrder) -> "Report":
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.cwd)
    _redirect(Path(order.output))
    report = order.job.run()
    sys.stdout.flush()
    sys.stderr.flush()
    return report


def _sets_environment(order: JobOrder) -> bool:
    """Whether the config sets variables, which libraries may read only once. A rule that stops a trial is no such."""
    return bool(set(order.job.config.hydra.job.env_set) - {VARIABLE})


def _prepare(modules: list[str]) -> None:
    """Imports what jobs need. Threads that MLX starts inherit a mask without the signals that `SignalHandler` takes."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _CAUGHT)
    for module in modules:
        with suppress(Exception):  # the job imports it again, and reports the error
            import_module(module)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _die_with_parent() -> None:
    """A killed server takes its jobs along; if memory runs out, the kernel chooses a job and not the sweep."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == 1:
        os._exit(1)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def _redirect(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.close(file)
