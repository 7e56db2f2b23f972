"""Jobs in processes of their own, forked from a server that has imported what they need.

The server is that of `multiprocessing`; its children are new processes in all but their imports. On Linux with the CPU
backend it may import MLX, which starts its threads with the first evaluation. Nothing that it imports may evaluate an
array: a child would wait forever for a thread of its parent.
"""

import math
import os
import re
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, replace
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import wait as wait_for_any
from multiprocessing.context import ForkServerProcess
from typing import Any

from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from mlxlab.backend.memory import free_memory, process_memory, total_memory
from mlxlab.backend.openblas import is_for_cuda, mlx_library
from mlxlab.errors import CannotCreateError, ConfigError
from mlxlab.record.attempts import Ending, record_crash
from mlxlab.sweep import child
from mlxlab.sweep.interrupts import Interrupts, signals_blocked
from mlxlab.sweep.jobs import Job, JobResult, JobTask, compose, record_of
from mlxlab.sweep.settings import ProcessSettings

_WITHOUT_MLX = (
    "numpy.random",
    "mlxlab.sweep.child",
    "mlxlab.run.entry",
    "mlxlab.run.context",
    "tokenizers",
    "safetensors.numpy",
    "xxhash",
)
_WITH_MLX = (
    "mlx.core",
    "mlx.nn",
    "mlx.optimizers",
    "mlxlab.run.train",
    "mlxlab.past_runs.collect_record",
    "mlxlab.views.pages",
)
_BASELINES = (
    "mlxlab.models.baselines.predict",
    "sklearn.ensemble",
    "sklearn.feature_extraction.text",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "sklearn.svm",
)

TIMEOUT = 124  # exit code, as that of the command timeout
_POLL_SECONDS = 0.1
_GB = 10**9


@dataclass
class RunningJob:
    """A job and its process.

    Args:
        attempt: how often this sweep has started it.
        peak: the memory that it was seen to take, in bytes, if there is a limit.
        kill_at: when it is killed; infinite unless it is being stopped.
        failure: why it is being stopped, if it then has failed.
    """

    job: Job
    process: ForkServerProcess
    attempt: int
    started: float
    peak: int = 0
    kill_at: float = math.inf
    failure: Ending | None = None

    @property
    def pid(self) -> int:
        return self.process.pid or 0

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process and its children, if it has not ended."""
        if self.process.exitcode is None:
            child.signal_group(self.process.pid, number)
            if number == signal.SIGKILL:
                self.process.kill()  # It may not have a group of its own yet.


class JobProcesses:
    """Starts the jobs of one sweep; `close` kills those that still run.

    Raises:
        ConfigError: the memory limit is more than this machine has.
    """

    def __init__(
        self,
        hydra: HydraContext,
        task: JobTask,
        config: DictConfig,
        settings: ProcessSettings,
    ) -> None:
        self.hydra = hydra
        self.task = task
        self.config = config
        self.settings = settings
        self.limit = _memory_limit(settings["memory_limit"])
        self._largest = 0  # memory of a job that has ended, in bytes
        self._context = get_context("forkserver")
        modules = preloaded_modules(config, task.task.__module__)
        self._context.set_forkserver_preload(modules)
        resource_tracker.ensure_running()  # A tracker that starts later would unblock the signals of `signals_blocked`.
        self._running: dict[Any, RunningJob] = {}  # sentinel of the process -> its job
        self._queue: deque[tuple[Job, int]] = deque()  # jobs and the next attempt of each
        self._interrupts = Interrupts()
        self._interrupts.install()

    @property
    def num_free(self) -> int:
        return self.settings["n_jobs"] - len(self._running) - len(self._queue)

    @property
    def stop_signal(self) -> int:
        return self._interrupts.stop_signal

    def start(self, job: Job) -> None:
        self._queue.append((job, 1))
        self._start_queued()

    def wait(self) -> JobResult:
        while True:
            self._start_queued()
            if self.stop_signal and self._queue:
                job, _ = self._queue.popleft()
                record = replace(record_of(job), state="stopped", reason="not started")
                return JobResult(job, record)
            for sentinel in wait_for_any([*self._running], _POLL_SECONDS):
                result = self._end(self._running.pop(sentinel))
                if result is not None:
                    return result
            for running in self._running.values():
                self._enforce_limits(running)

    def close(self) -> None:
        for running in self._running.values():
            running.signal(signal.SIGKILL)
        for running in self._running.values():
            running.process.join()
        self._running.clear()
        self._interrupts.uninstall()

    def _start_queued(self) -> None:
        while self._queue and not self.stop_signal and self._has_room():
            job, attempt = self._queue.popleft()
            args = (job.config, self.task, self.hydra.callbacks, job.folder, dict(os.environ))
            process = self._context.Process(target=child.run, args=args)
            with signals_blocked():
                process.start()
            self._running[process.sentinel] = RunningJob(job, process, attempt, time.monotonic())

    def _has_room(self) -> bool:
        """Whether a job as large as the largest so far fits in, once those that run have grown as much."""
        if len(self._running) >= self.settings["n_jobs"]:
            return False
        if self.limit is None:
            return True
        size = self._largest or self.limit
        used = [process_memory(running.pid) for running in self._running.values()]
        growing = sum(max(size - each, 0) for each in used)
        return free_memory() - growing >= size

    def _end(self, running: RunningJob) -> JobResult | None:
        """The result of a job whose process has ended; None if the job starts again."""
        job = running.job
        running.process.join()
        self._largest = max(self._largest, running.peak)
        # Children that it left behind are in its process group.
        child.signal_group(running.process.pid, signal.SIGKILL)
        record = record_of(job)
        has_ended = record.state not in ("waiting", "running") and record.pid == running.pid
        if has_ended and (running.failure is None or record.value is not None):
            return JobResult(job, record)
        if running.process.exitcode == CannotCreateError.exit_code:
            reason = "another process runs this job"
            return JobResult(job, replace(record, state="stopped", reason=reason))
        ending = running.failure or self._crash(running)
        if ending is None:
            again = compose(self.hydra, self.config, job.overrides, job.number)
            self._queue.appendleft((again, running.attempt + 1))
            return None
        seconds = time.monotonic() - running.started
        record_crash(job.folder, job.identity, running.pid, seconds, ending)
        return JobResult(job, record_of(job))

    def _crash(self, running: RunningJob) -> Ending | None:
        """Why a process ended without a result; None if the job is to start again."""
        if self.stop_signal:
            return Ending("interrupted", "stopped before it had saved", 128 + self.stop_signal)
        if running.attempt <= self.settings["retries"]:
            return None
        exit_code = running.process.exitcode or 0
        if exit_code >= 0:
            reason = f"exited with code {exit_code} before its end"
            return Ending("failed", reason, exit_code or 1)
        name = signal.Signals(-exit_code).name
        return Ending("failed", f"killed by {name}", 128 - exit_code)

    def _enforce_limits(self, running: RunningJob) -> None:
        """Stops a job that exceeds a limit, and every job after a signal."""
        now = time.monotonic()
        if self.limit is not None:
            running.peak = max(running.peak, process_memory(running.pid))
        if self._interrupts.kills_jobs or now > running.kill_at:
            running.signal(signal.SIGKILL)
        elif running.kill_at < math.inf:
            return
        elif self.limit is not None and running.peak > self.limit:
            reason = f"took more than the {self.limit / _GB:g} GB of hydra.launcher.memory_limit"
            running.failure = Ending("failed", reason, 128 + signal.SIGKILL)
            running.signal(signal.SIGKILL)
        elif now - running.started > (self.settings["timeout"] or math.inf):
            reason = f"timeout: took more than {self.settings['timeout']:g} seconds"
            running.failure = Ending("failed", reason, TIMEOUT)
            self._stop(running)
        elif self._interrupts.stops_jobs:
            self._stop(running)

    def _stop(self, running: RunningJob) -> None:
        """Asks a job to save and end."""
        running.kill_at = time.monotonic() + self.settings["grace"]
        running.signal(signal.SIGTERM)


def _memory_limit(gigabytes: float | None) -> int | None:
    """The limit in bytes; ConfigError if this machine has less."""
    if gigabytes is None:
        return None
    if gigabytes * _GB > total_memory():
        got = f"got {gigabytes:g} of {total_memory() / _GB:.3g} GB"
        raise ConfigError(
            f"hydra.launcher.memory_limit: expected no more than this machine has, {got}"
        )
    return int(gigabytes * _GB)


def preloaded_modules(config: DictConfig, task_module: str) -> list[str]:
    """The modules to import, in order, for the jobs of a config."""
    first = [task_module, *_WITHOUT_MLX]
    if not can_fork_mlx():
        return first
    baselines = _BASELINES if OmegaConf.select(config, "data.baselines") else ()
    return [*first, *_WITH_MLX, *baselines, *_target_modules(config)]


def can_fork_mlx() -> bool:
    """Whether a process that has imported MLX may be forked: neither Metal nor CUDA allow it."""
    library = mlx_library()
    return sys.platform == "linux" and library is not None and not is_for_cuda(library)


def _target_modules(config: DictConfig) -> list[str]:
    """The modules of mlxlab that the components of a config are in."""
    targets = re.findall(r"_target_: (mlxlab\..+)\.\w+", OmegaConf.to_yaml(config))
    return sorted(set(targets))
