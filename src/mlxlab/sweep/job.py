"""A job of a sweep: how it is composed, and the task that also records what came of it."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mlxlab.checkpoint.names import FOLDER, committed_paths, holds_rounds
from mlxlab.config.hydra.job import job_folder, set_number
from mlxlab.errors import CannotCreateError
from mlxlab.files.atomic import lock
from mlxlab.record.jobs import JobRecord, begin_job, end_job, read_job
from mlxlab.record.run_file import FILE
from mlxlab.record.run_record import JobIdentity
from mlxlab.schema.dotted_keys import override_name
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
