"""The launcher of `hydra/launcher=isolated`: jobs in processes of their own, several at a time."""

import os
import pickle
import signal
import sys
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass

from omegaconf import OmegaConf

from mlxlab.backend.machine_memory import free_memory, process_memory
from mlxlab.backend.memory import total_memory
from mlxlab.config.issues import walk
from mlxlab.constraints import Count, NonNegative, Positive, Size
from mlxlab.errors import ConfigError
from mlxlab.files.untrusted import parse_json
from mlxlab.sweep.launcher.interrupts import Interrupts, interrupts
from mlxlab.sweep.launcher.job_process import JobOrder
from mlxlab.sweep.launcher.job_processes import JobProcesses
from mlxlab.sweep.launcher.job_run import HydraJob, Report
from mlxlab.sweep.launcher.jobs import ComposedJob, JobResult, SweepContext, resumed
from mlxlab.sweep.launcher.messages import Ended, Hello
from mlxlab.sweep.launcher.results import TIMEOUT, crash, job_result

OUTPUT = "output.log"
_POLL_SECONDS = 0.1
_GB = 10**9
_PRELOAD_LATER = (
    "tokenizers",
    "safetensors.numpy",
    "xxhash",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
)


@dataclass
class RunningJob:
    """A job that was started, or waits for its turn."""

    job: ComposedJob
    more: bool
    pid: int = 0
    attempts: int = 0
    seconds: float = 0.0  # of earlier attempts
    started: float = 0.0
    failure: Report | None = None  # why it is being stopped, if it then has failed
    kill_at: float | None = None


class IsolatedLauncher:
    """Runs jobs in processes of their own. One that crashes or hangs, or is killed, is a job that failed.

    Args:
        n_jobs: jobs at a time. Each writes its output to `output.log` in its folder.
        timeout: seconds after which a job is stopped and has failed; null is no limit.
        retries: how often a job that crashed (not one that raised an error) starts again, from its latest checkpoint.
        memory_limit: GB that a job may take, and that must be free before it starts; null is no limit, and a further
            job starts while as much is free as the largest one took.
        grace: seconds that a job which is stopped has for saving, before it is killed.
        retry_failed: start failed jobs again when a sweep is continued.
        jobs_per_process: how many jobs one process runs, one after the other, as long as none of them fails; 1 with a
            memory limit; null is no limit.
    """

    def __init__(
        self,
        n_jobs: Size,
        timeout: Positive | None,
        retries: Count,
        memory_limit: Positive | None,
        grace: NonNegative,
        retry_failed: bool,
        jobs_per_process: Size | None,
        *,
        context: SweepContext,
    ) -> None:
        if memory_limit is not None and memory_limit * _GB > total_memory():
            got = f"got {memory_limit:g} of {total_memory() / _GB:.3g} GB"
            raise ConfigError(
                f"hydra.launcher.memory_limit: expected no more than this machine has, {got}"
            )
        self.n_jobs, self.timeout, self.retries, self.grace = n_jobs, timeout, retries, grace
        self.limit = None if memory_limit is None else int(memory_limit * _GB)
        self.context = context
        self._processes = JobProcesses(
            hello(context, jobs_per_process if memory_limit is None else 1)
        )
        self._running: dict[int, RunningJob] = {}
        self._queue: deque[RunningJob] = deque()
        self._peak_bytes = 0  # of the largest job so far
        self._interrupts = Interrupts()
        self._stack = ExitStack()

    def __enter__(self) -> "IsolatedLauncher":
        self._interrupts = self._stack.enter_context(interrupts())
        self._stack.callback(self._processes.close)
        return self

    def __exit__(self, *_: object) -> None:
        """Kills the jobs that still run."""
        self._stack.close()

    @property
    def num_free(self) -> int:
        return self.n_jobs - len(self._running) - len(self._queue)

    @property
    def stop_signal(self) -> int:
        return self._interrupts.stop_signal

    def start(self, overrides: list[str], number: int, *, more: bool = True) -> None:
        self.start_composed(self.context.compose(overrides, number), more=more)

    def start_composed(self, job: ComposedJob, *, more: bool = True) -> None:
        self._queue.append(RunningJob(job, more))
        self._start_queued()

    def wait(self) -> JobResult:
        if not (self._running or self._queue):
            raise ValueError("no job was started")
        while True:
            self._start_queued()
            if self.stop_signal and self._queue:
                waiting = self._queue.popleft()
                report = Report(None, "not started", 128 + self.stop_signal, interrupted=True)
                return job_result(
                    waiting.job, report, attempts=waiting.attempts, seconds=waiting.seconds
                )
            ended = self._processes.wait(_POLL_SECONDS)
            if ended is not None and (result := self._finish(ended)) is not None:
                return result
            for number, running in self._running.items():
                self._enforce(number, running)

    def _start_queued(self) -> None:
        while (
            self._queue
            and not self.stop_signal
            and len(self._running) < self.n_jobs
            and self._fits()
        ):
            running = self._queue.popleft()
            job = HydraJob(running.job.config, self.context.task, self.context.callbacks)
            order = JobOrder(job, dict(os.environ), os.getcwd(), str(running.job.folder / OUTPUT))
            running.attempts, running.started = running.attempts + 1, time.monotonic()
            started = self._processes.start(pickle.dumps(order), more=running.more)
            running.pid, self._running[started.number] = started.pid, running

    def _fits(self) -> bool:
        """Whether one more job fits in the free memory, once those that run have taken what they may."""
        needed = self.limit or self._peak_bytes
        if not needed or (self.limit is None and not self._running):
            return True
        growing = sum(
            max(0, needed - process_memory(running.pid)) for running in self._running.values()
        )
        return free_memory() - growing >= needed

    def _finish(self, ended: Ended) -> JobResult | None:
        """The result of a job that ended; None if it starts again."""
        running = self._running.pop(ended.number)
        running.seconds += time.monotonic() - running.started
        self._peak_bytes = max(self._peak_bytes, ended.peak_bytes)
        report = (
            parse_json(ended.report, Report, "the report of a job", allow_nan=True)
            if ended.report
            else None
        )
        if (
            report is None
            and running.failure is None
            and not self.stop_signal
            and running.attempts <= self.retries
        ):
            overrides = resumed(running.job.overrides, running.job.folder)
            running.job = self.context.compose(overrides, running.job.number)
            running.kill_at = None
            self._queue.appendleft(running)
            return None
        if running.failure is not None and (report is None or report.value is None):
            report = running.failure
        elif report is None and running.kill_at is not None:
            report = Report(
                None, "stopped before it had saved", 128 + self.stop_signal, interrupted=True
            )
        report = report or crash(ended.exit_code)
        return job_result(
            running.job,
            report,
            attempts=running.attempts,
            seconds=running.seconds,
            peak_bytes=ended.peak_bytes,
        )

    def _enforce(self, number: int, running: RunningJob) -> None:
        """Stops a job that exceeds a limit, and all jobs after a signal."""
        now = time.monotonic()
        if self.limit is not None and process_memory(running.pid) > self.limit:
            reason = f"took more than the {self.limit / _GB:g} GB of hydra.launcher.memory_limit"
            running.failure = Report(None, reason, 128 + signal.SIGKILL, interrupted=False)
            self._processes.signal(number, signal.SIGKILL)
        elif self._interrupts.kills_jobs or (running.kill_at is not None and now > running.kill_at):
            running.kill_at = running.kill_at or now
            self._processes.signal(number, signal.SIGKILL)
        elif running.kill_at is None:
            if self.timeout is not None and now - running.started > self.timeout:
                reason = f"timeout: took more than {self.timeout:g} seconds"
                running.failure = Report(None, reason, TIMEOUT, interrupted=False)
            elif not self._interrupts.stops_jobs:
                return
            running.kill_at = now + self.grace
            self._processes.signal(number, signal.SIGTERM)


def hello(context: SweepContext, jobs_per_process: int | None) -> Hello:
    """What the processes of a sweep import before their jobs come."""
    nodes = (
        node
        for _, node in walk(OmegaConf.to_container(context.config, resolve=False))
        if isinstance(node, dict)
    )
    targets = {str(node["_target_"]) for node in nodes if "_target_" in node}
    modules = {
        target.rpartition(".")[0]
        for target in targets
        if not target.startswith(("hydra.", "mlxlab.sweep."))
    }
    preload = [
        type(context.task).__module__,
        "mlxlab.experiment.experiment",
        "mlxlab.experiment.run",
        "numpy",
    ]
    imported = ["mlxlab.experiment.train", "mlxlab.experiment.run_report.write", *sorted(modules)]
    return Hello(
        list(sys.path), list(sys.argv), preload, list(_PRELOAD_LATER), imported, jobs_per_process
    )
