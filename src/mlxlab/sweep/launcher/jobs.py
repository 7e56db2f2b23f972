"""The interface of launchers: start jobs, wait for any of them to end."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mlxlab.checkpoint.names import FOLDER, ROUNDS, committed_paths
from mlxlab.config.hydra.compose import Callbacks
from mlxlab.config.hydra.job import compose_job, job_digest, job_folder
from mlxlab.config.resume_overrides import override_name


@dataclass(frozen=True)
class JobResult:
    """What came of a job.

    Args:
        state: stopped by a signal, it resumes from its checkpoint with `resume=auto`.
        value: of the objective, of a finished job.
        reason: why it failed or was stopped, in one line.
        exit_code: of its last process; 128 + number for a signal.
        attempts: how often it was started here: once, and again after each crash that was retried.
        seconds: of all attempts.
        peak_bytes: of memory, of one process; 0 if it was not measured.
    """

    number: int
    state: Literal["finished", "failed", "stopped"]
    value: float | None
    reason: str
    exit_code: int
    attempts: int
    seconds: float
    folder: Path
    peak_bytes: int = 0


@dataclass(frozen=True)
class ComposedJob:
    """A job that can be started: its number in the sweep, its overrides, its config and its folder."""

    number: int
    overrides: list[str]
    config: DictConfig
    folder: Path


@dataclass(frozen=True)
class SweepContext:
    """The sweep that jobs are of: its config, and what Hydra calls for each job."""

    config: DictConfig
    hydra: HydraContext
    task: TaskFunction

    @property
    def callbacks(self) -> Callbacks:
        return self.hydra.callbacks

    def compose(self, overrides: list[str], number: int) -> ComposedJob:
        """Raises ConfigError if the folder of the job is not inside that of the sweep."""
        config = compose_job(self.hydra.config_loader, self.config, overrides, number)
        return ComposedJob(number, overrides, config, job_folder(config))

    def digest(self, job: ComposedJob) -> str:
        """Equal for jobs of the same resolved config, in whatever folder."""
        return job_digest(job.config)


class Jobs(Protocol):
    """A launcher, which runs jobs of one sweep in its `with` block. What a job raises is its `JobResult`."""

    def __enter__(self) -> "Jobs": ...

    def __exit__(self, *_: object) -> None:
        """No job outlives it."""

    @property
    def num_free(self) -> int:
        """How many jobs may be started now; more than that wait for their turn."""

    @property
    def stop_signal(self) -> int:
        """The number of a signal after which no job is to be started; 0 if there was none."""

    def start(self, overrides: list[str], number: int, *, more: bool = True) -> None:
        """Composes a job and starts it; `more`: another one will follow. Raises as `SweepContext.compose`."""

    def start_composed(self, job: ComposedJob, *, more: bool = True) -> None:
        """`start` of a job that has been composed."""

    def wait(self) -> JobResult:
        """The next job that ends; ValueError if none was started."""


def resumed(overrides: list[str], folder: Path) -> list[str]:
    """Overrides of a job that was started before: it continues from the latest checkpoint in its folder, if any."""
    others = [text for text in overrides if override_name(text) != "resume"]
    is_begun = committed_paths(folder / FOLDER) or (folder / ROUNDS).is_file()
    return [*others, "resume=auto"] if is_begun or len(others) == len(overrides) else overrides
