"""What a sweep knows of its app: its folder, its overrides, and the launcher of its jobs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mlxlab.config.hydra.overrides import as_typed
from mlxlab.config.hydra.sweep_jobs import params_not_typed
from mlxlab.errors import InputNotFoundError
from mlxlab.experiment.sweep_start import SweepStart, read_sweep_start, write_sweep_start
from mlxlab.sweep.continued_sweep import check_continued, sweep_start
from mlxlab.sweep.job import Job, JobTask, compose, hold_lock
from mlxlab.sweep.jobs import JobResult, Jobs, LaunchedJobs, run_jobs
from mlxlab.sweep.parent_run import sweep_folder
from mlxlab.sweep.processes import JobProcesses
from mlxlab.sweep.progress_line import progress_line

LOCK = "sweep.lock"
_IN_PROCESS = "basic"  # Hydra's own launcher, which runs one job after the other here.


class SweepApp:
    """A sweep of an app.

    Attributes:
        exit_code: of the sweep, for Hydra's callbacks.
    """

    def __init__(self, hydra: HydraContext, task: TaskFunction, config: DictConfig) -> None:
        self.hydra = hydra
        self.task = JobTask(task)
        self.config = config
        self.folder = sweep_folder(config)
        self.objective = str(config.objective)
        self.exit_code = 1

    @cached_property
    def overrides(self) -> dict[str, Override]:
        """The overrides of all jobs by key; those that are typed count more than `params`."""
        parser = OverridesParser.create(self.hydra.config_loader)
        typed = parser.parse_overrides(as_typed(self.config.hydra.overrides.task))
        params = self.config.hydra.sweeper.get("params") or {}
        in_file = parser.parse_overrides(params_not_typed(params, typed))
        return {override.get_key_element(): override for override in [*in_file, *typed]}

    @property
    def launcher(self) -> str:
        """The option of hydra/launcher."""
        return str(self.config.hydra.runtime.choices["hydra/launcher"])

    @property
    def has_own_launcher(self) -> bool:
        return str(self.config.hydra.launcher._target_).startswith("hydra_plugins.mlxlab_sweep.")

    @property
    def is_resumed_by_folder(self) -> bool:
        """Whether `sweep.resume` starts this launcher; one of a plugin may run commands of its own."""
        return self.has_own_launcher or self.launcher == _IN_PROCESS

    @contextmanager
    def open(self) -> Iterator[SweepStart]:
        """Holds the folder of the sweep, and gives its command, with the jobs that the folder has.

        Raises:
            CannotCreateError: another process runs this sweep, or its folder cannot be made.
            ConfigError: the folder holds another sweep.
            DataError: what it holds is damaged.
        """
        with hold_lock(self.folder / LOCK, f"{self.folder}: another process runs this sweep"):
            start = sweep_start(self.config)
            with suppress(InputNotFoundError):
                stored = read_sweep_start(self.folder)
                check_continued(stored, start, self.folder)
                start["jobs"] = stored["jobs"]
            yield start

    @contextmanager
    def run(self, start: SweepStart, **results: Any) -> Iterator[None]:
        """Keeps the command, and calls Hydra's callbacks of a sweep.

        Args:
            results: what the callbacks are given at the end.
        """
        write_sweep_start(self.folder, start)
        OmegaConf.save(self.config, self.folder / "multirun.yaml")
        names: dict[str, Any] = {"config": self.config, "config_name": "train"}
        callbacks = self.hydra.callbacks
        callbacks.on_multirun_start(**names)
        try:
            yield
        finally:
            callbacks.on_multirun_end(**names, exit_code=self.exit_code, **results)

    def compose(self, overrides: list[str], number: int, *, resume: bool = False) -> Job:
        return compose(self.hydra, self.config, overrides, number, resume)

    def run_jobs(
        self,
        next_job: Callable[[], Job | None],
        end_job: Callable[[JobResult], None],
        running: Mapping[int, Path],
        batch_size: int,
    ) -> int:
        """`jobs.run_jobs` with the launcher of the config; returns the number of a signal that came, else 0.

        Args:
            running: the folders of the jobs that run, by number.
        """
        progress = progress_line(running) if self.has_own_launcher else nullcontext()
        jobs = self.open_jobs(batch_size)
        with closing(jobs), progress:
            run_jobs(jobs, next_job, end_job)
        return jobs.stop_signal

    def open_jobs(self, batch_size: int) -> Jobs:
        """The launcher of the config.

        Args:
            batch_size: jobs at a time of a launcher that is not ours.
        """
        launcher = Plugins.instance().instantiate_launcher(self.hydra, self.task, self.config)
        processes = getattr(launcher, "processes", None)
        if isinstance(processes, JobProcesses):
            return processes
        if self.launcher == _IN_PROCESS:
            batch_size = 1
        return LaunchedJobs(launcher, self.launcher, self.folder, batch_size)
