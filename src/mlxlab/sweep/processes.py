"""Jobs in processes of their own, forked from a server that has imported what they need.

The server is that of `multiprocessing`; its children are new processes in all but their imports.
"""

import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import wait as wait_for_any
from multiprocessing.context import ForkServerProcess
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mlxlab.backend.machine_memory import free_memory, process_memory
from mlxlab.backend.memory import total_memory
from mlxlab.errors import CannotCreateError, ConfigError
from mlxlab.sweep import child, preload
from mlxlab.sweep.interrupts import Interrupts, signals_blocked
from mlxlab.sweep.job import (
    Job,
    JobRecord,
    JobTask,
    State,
    compose,
    read_record,
    seconds_of_attempts,
    write_record,
)
from mlxlab.sweep.jobs import JobResult, run_jobs
from mlxlab.sweep.settings import ProcessSettings

TIMEOUT = 124  # exit code, as that of the command timeout
_POLL_SECONDS = 0.1
_GB = 10**9


@dataclass(frozen=True)
class Failure:
    """Why a job has no value though it did not say so itself."""

    reason: str
    exit_code: int
    state: State = "failed"


@dataclass
class RunningJob:
    """A job and its process.

    Args:
        attempt: how often this sweep has started it.
        kill_at: when it is killed, if it is being stopped.
        failure: why it is being stopped, if it then has failed.
    """

    job: Job
    process: ForkServerProcess
    attempt: int
    started: float
    kill_at: float | None = None
    failure: Failure | None = None

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
        task: TaskFunction,
        config: DictConfig,
        settings: ProcessSettings,
    ) -> None:
        self.hydra = hydra
        self.task = task if isinstance(task, JobTask) else JobTask(task)
        self.config = config
        self.settings = settings
        self.limit = _memory_limit(settings["memory_limit"])
        self._context = get_context("forkserver")
        modules = preload.modules(config, type(self.task.task).__module__)
        self._context.set_forkserver_preload(modules)
        resource_tracker.ensure_running()  # Its start unblocks the signals of `signals_blocked`.
        self._running: dict[Any, RunningJob] = {}  # by the sentinel of its process
        self._queue: deque[tuple[Job, int]] = deque()  # with the number of the next attempt
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
                return self._refuse(*self._queue.popleft())
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
            order = child.JobOrder(
                job.config, self.task, self.hydra.callbacks, job.folder, dict(os.environ)
            )
            process = self._context.Process(target=child.run, args=(order,))
            with signals_blocked():
                process.start()
            self._running[process.sentinel] = RunningJob(job, process, attempt, time.monotonic())

    def _has_room(self) -> bool:
        """Whether one more job fits into the free memory, once those that run have taken what they may."""
        if len(self._running) >= self.settings["n_jobs"]:
            return False
        if self.limit is None:
            return True
        used = [process_memory(running.process.pid or 0) for running in self._running.values()]
        growing = sum(max(self.limit - each, 0) for each in used)
        return free_memory() - growing >= self.limit

    def _refuse(self, job: Job, attempt: int) -> JobResult:
        """The result of a job that a signal keeps from starting."""
        record = _record_of(job)
        if attempt == 1:
            return JobResult(job, replace(record, state="stopped", reason="not started"))
        return self._record(job, record, Failure("not started again", 128, "stopped"), 0.0)

    def _end(self, running: RunningJob) -> JobResult | None:
        """The result of a job whose process has ended; None if the job starts again."""
        job = running.job
        running.process.join()
        # Children that it left behind are in its process group.
        child.signal_group(running.process.pid, signal.SIGKILL)
        record = _record_of(job)
        has_ended = record.state not in ("waiting", "running")
        if has_ended and (running.failure is None or record.value is not None):
            return JobResult(job, record)
        if running.process.exitcode == CannotCreateError.exit_code:
            reason = "another process runs this job"
            return JobResult(job, replace(record, state="stopped", reason=reason))
        failure = running.failure or self._crash(running)
        if failure is not None:
            return self._record(job, record, failure, time.monotonic() - running.started)
        again = compose(self.hydra, self.config, job.overrides, job.number, resume=True)
        self._queue.appendleft((again, running.attempt + 1))
        return None

    def _record(self, job: Job, record: JobRecord, failure: Failure, seconds: float) -> JobResult:
        """Records what a job could not say itself, with the seconds that it took now."""
        ended = replace(
            record,
            state=failure.state,
            reason=failure.reason,
            exit_code=failure.exit_code,
            seconds=round(max(record.seconds + seconds, seconds_of_attempts(job.folder)), 3),
        )
        write_record(job.folder, ended)
        return JobResult(job, ended)

    def _crash(self, running: RunningJob) -> Failure | None:
        """Why a process ended without a result; None if the job is to start again."""
        if self.stop_signal:
            return Failure("stopped before it had saved", 128 + self.stop_signal, "stopped")
        if running.attempt <= self.settings["retries"]:
            return None
        exit_code = running.process.exitcode or 0
        if exit_code >= 0:
            return Failure(f"exited with code {exit_code} before its end", exit_code or 1)
        name = signal.Signals(-exit_code).name
        return Failure(f"killed by {name}", 128 - exit_code)

    def _enforce_limits(self, running: RunningJob) -> None:
        """Stops a job that exceeds a limit, and every job after a signal."""
        now = time.monotonic()
        if self._interrupts.kills_jobs or (running.kill_at is not None and now > running.kill_at):
            running.signal(signal.SIGKILL)
        elif running.kill_at is not None:
            return
        elif self.limit is not None and process_memory(running.process.pid or 0) > self.limit:
            reason = f"took more than the {self.limit / _GB:g} GB of hydra.launcher.memory_limit"
            running.failure = Failure(reason, 128 + signal.SIGKILL)
            running.signal(signal.SIGKILL)
        elif self._is_late(running, now):
            reason = f"timeout: took more than {self.settings['timeout']:g} seconds"
            running.failure = Failure(reason, TIMEOUT)
            self._stop(running)
        elif self._interrupts.stops_jobs:
            self._stop(running)

    def _is_late(self, running: RunningJob, now: float) -> bool:
        timeout = self.settings["timeout"]
        return timeout is not None and now - running.started > timeout

    def _stop(self, running: RunningJob) -> None:
        """Asks a job to save and end."""
        running.kill_at = time.monotonic() + self.settings["grace"]
        running.signal(signal.SIGTERM)


def launch(
    jobs: JobProcesses, job_overrides: Sequence[Sequence[str]], first_number: int
) -> list[JobReturn]:
    """The interface of Hydra's launchers: runs a batch, and returns its results in order."""
    queue = deque(enumerate(job_overrides, first_number))
    returns: dict[int, JobReturn] = {}

    def next_job() -> Job | None:
        if not queue:
            return None
        number, overrides = queue.popleft()
        return compose(jobs.hydra, jobs.config, list(overrides), number)

    def end_job(result: JobResult) -> None:
        returned = JobReturn(result.job.overrides, result.job.config, working_dir=os.getcwd())
        returned.status = JobStatus.FAILED
        returned.return_value = RuntimeError(result.record.reason)
        if result.record.state == "finished":
            returned.status = JobStatus.COMPLETED
            returned.return_value = result.record.value
        returns[result.job.number] = returned

    try:
        run_jobs(jobs, next_job, end_job)
    finally:
        jobs.close()
    return [returns[number] for number in sorted(returns)]


def _record_of(job: Job) -> JobRecord:
    return read_record(job.folder) or JobRecord(job.number, job.overrides)


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
