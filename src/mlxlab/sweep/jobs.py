"""The jobs of a sweep: how they are composed, how they run, and the task that records what came of each."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hydra.core.hydra_config import HydraConfig
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mlxlab.checkpoint.names import FOLDER, committed_paths, holds_rounds
from mlxlab.config.hydra.job import job_folder, set_number
from mlxlab.errors import CannotCreateError, WorkerLostError
from mlxlab.files.atomic import lock
from mlxlab.record.attempts import JobRecord, begin_job, end_job, read_job
from mlxlab.record.run_file import FILE
from mlxlab.record.run_record import JobIdentity
from mlxlab.schema.dotted_keys import override_name
from mlxlab.sweep.child import OUTPUT
from mlxlab.terminal.program import text_value
from mlxlab.terminal.redact import redact
from mlxlab.terminal.wording import one_line
from mlxlab.training.stop_rule import stop_rule

LOCK = "job.lock"
_PATIENCE = 5.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Job:
    """A job that can be started.

    Args:
        number: in its sweep.
        overrides: as it was composed.
    """

    number: int
    overrides: list[str]
    config: DictConfig
    folder: Path

    @property
    def identity(self) -> JobIdentity:
        """What the record of its run has of it, if its process cannot record it."""
        own = [text for text in self.overrides if not override_name(text).startswith("hydra.")]
        return JobIdentity(self.number, own)


def compose(hydra: HydraContext, sweep: DictConfig, overrides: list[str], number: int) -> Job:
    """Composes a job of a sweep; one that was started before continues from its latest checkpoint.

    Raises:
        ConfigError: its folder is not inside that of the sweep.
    """
    job = _compose(hydra, sweep, overrides, number)
    if not (job.folder / FILE).exists():
        return job
    others = [text for text in overrides if override_name(text) != "resume"]
    has_checkpoint = committed_paths(job.folder / FOLDER) or holds_rounds(job.folder)
    if len(others) < len(overrides) and not has_checkpoint:
        return job  # It still starts from the run that its own `resume` names.
    return _compose(hydra, sweep, [*others, "resume=auto"], number)


def _compose(hydra: HydraContext, sweep: DictConfig, overrides: list[str], number: int) -> Job:
    config = hydra.config_loader.load_sweep_config(sweep, overrides)
    set_number(config, number)
    return Job(number, overrides, config, job_folder(config))


def record_of(job: Job) -> JobRecord:
    """What is known of a job."""
    return read_job(job.folder) or JobRecord(job.identity)


@contextmanager
def hold_lock(path: Path, busy: str, patience: float = 0.0) -> Iterator[None]:
    """Holds a lock; CannotCreateError with `busy` if another process still does after `patience` seconds."""
    until = time.monotonic() + patience
    with ExitStack() as stack:
        try:
            while not stack.enter_context(lock(path)):
                if time.monotonic() > until:
                    raise CannotCreateError(busy)
                time.sleep(_POLL_SECONDS)
        except OSError as error:
            raise CannotCreateError(f"{path}: {error.strerror}") from None
        yield


class JobTask:
    """The task of the app, which also records what came of it in the folder of the job."""

    def __init__(self, task: TaskFunction) -> None:
        self.task = task

    def __call__(self, config: DictConfig) -> float:
        folder = Path(HydraConfig.get().runtime.output_dir)
        # The process of a sweep that was killed may still be ending.
        busy = f"{folder}: another process runs this job"
        with hold_lock(folder / LOCK, busy, _PATIENCE):
            begin_job(folder, _identity(), str(config.objective))
            try:
                value = float(self.task(config))
            except BaseException as error:
                end_job(folder, error)
                raise
            end_job(folder, None, value)
            return value


def _identity() -> JobIdentity:
    """The job that this process runs."""
    hydra = HydraConfig.get()
    rule = stop_rule()
    budget = rule["pause_at"] if rule else None
    return JobIdentity(int(hydra.job.num), [*hydra.overrides.task], budget)


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
