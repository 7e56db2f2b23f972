"""How jobs run: the interface of launchers, the loop that all sweepers share, and launchers of plugins."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hydra.plugins.launcher import Launcher

from mlxlab.errors import WorkerLostError
from mlxlab.record.attempts import JobRecord
from mlxlab.sweep.child import OUTPUT
from mlxlab.sweep.job import Job, record_of
from mlxlab.terminal.program import text_value
from mlxlab.terminal.redact import redact
from mlxlab.terminal.wording import one_line


@dataclass(frozen=True)
class JobResult:
    """A job that ended, and its record."""

    job: Job
    record: JobRecord


def describe(result: JobResult) -> str:
    """What came of a job, in words, and where its output is if it has no value."""
    record = result.record
    texts = [record.reason]
    if record.value is not None:
        texts.insert(0, f"{record.objective} {record.value:.6g}")
    text = f"{'; '.join(filter(None, texts))} after {record.seconds:.1f} s"
    output = result.job.folder / OUTPUT
    return f"{text} ({output})" if record.value is None and output.is_file() else text


class Jobs(Protocol):
    """Starts jobs, several at once, and waits for any of them to end."""

    @property
    def num_free(self) -> int:
        """How many more jobs may be started now."""

    @property
    def stop_signal(self) -> int:
        """The number of a signal after which no job is to be started; 0 if there was none."""

    def start(self, job: Job) -> None: ...

    def wait(self) -> JobResult:
        """The next job that ends."""

    def close(self) -> None:
        """No job outlives it."""


def run_jobs(
    jobs: Jobs, next_job: Callable[[], Job | None], end_job: Callable[[JobResult], None]
) -> None:
    """Runs jobs until there is no next one and none runs, or a signal has stopped those that did.

    Args:
        next_job: is asked again after each job that ended; None while there is nothing to start.
    """
    running = 0
    while True:
        while jobs.num_free > 0 and not jobs.stop_signal:
            job = next_job()
            if job is None:
                break
            jobs.start(job)
            running += 1
        if running == 0:
            return
        end_job(jobs.wait())
        running -= 1


class LaunchedJobs:
    """Jobs in batches on a launcher of Hydra or of a plugin, such as submitit's.

    Args:
        name: of the launcher, for messages.
        folder: of the sweep.
        batch_size: jobs that are started before any of them is waited for.
    """

    def __init__(self, launcher: Launcher, name: str, folder: Path, batch_size: int) -> None:
        self.launcher = launcher
        self.name = name
        self.folder = folder
        self.batch_size = batch_size
        self.stop_signal = 0
        self._waiting: list[Job] = []
        self._ended: deque[JobResult] = deque()

    @property
    def num_free(self) -> int:
        return self.batch_size - len(self._waiting) - len(self._ended)

    def start(self, job: Job) -> None:
        self._waiting.append(job)

    def wait(self) -> JobResult:
        if not self._ended:
            self._launch()
        return self._ended.popleft()

    def close(self) -> None:
        """The launcher has waited for all jobs."""

    def _launch(self) -> None:
        """Runs the jobs that wait as one batch; each names its folder, since launchers number jobs in a row."""
        batch = self._waiting
        self._waiting = []
        overrides = []
        for job in batch:
            subdir = text_value(str(job.folder.relative_to(self.folder)))
            overrides.append([*job.overrides, f"hydra.sweep.subdir={subdir}"])
        try:
            self.launcher.launch(overrides, initial_job_idx=batch[0].number)
        except OSError:
            raise
        except Exception as error:  # What jobs raise is in what the launcher returns.
            message = redact(one_line(f"{type(error).__name__}: {error}", 300))
            advice = "the same command runs the jobs that are missing"
            raise WorkerLostError(f"hydra/launcher={self.name}: {message}; {advice}") from error
        for job in batch:
            record = record_of(job)
            if record.state == "stopped":
                self.stop_signal = (record.exit_code or 128) - 128
            self._ended.append(JobResult(job, record))
