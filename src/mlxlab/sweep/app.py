"""What a sweep knows of its app: its folder, its command, its overrides, and the launcher of its jobs."""

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mlxlab import terminal
from mlxlab.analysis.sweeps.sweep_jobs import read_sweep
from mlxlab.analysis.sweeps.sweep_start import (
    SWEPT,
    SweepStart,
    read_sweep_start,
    untyped,
    write_sweep_start,
)
from mlxlab.analysis.sweeps.tables import describe_jobs
from mlxlab.config.admission import TRUST
from mlxlab.config.hydra.job import as_typed
from mlxlab.errors import ConfigError, InputNotFoundError
from mlxlab.sweep import is_ours
from mlxlab.sweep.jobs import (
    Job,
    JobResult,
    Jobs,
    JobTask,
    LaunchedJobs,
    compose,
    hold_lock,
    run_jobs,
)
from mlxlab.sweep.jobs_to_check import sweep_overrides
from mlxlab.sweep.parent_run import ParentRun, sweep_folder

LOCK = "sweep.lock"
_ADVICE = "continue with the same, or choose another hydra.sweep.dir"
_OF_FOLDER = ("hydra.mode=", "hydra.sweep.dir=")
_IN_PROCESS = "basic"  # Hydra's own launcher, which runs one job after the other here.


class SweepApp:
    """A sweep of an app.

    Attributes:
        start: its command; set by `open`.
        overrides: of all jobs, by key.
        exit_code: of the sweep, for Hydra's callbacks.
    """

    start: SweepStart

    def __init__(self, hydra: HydraContext, task: TaskFunction, config: DictConfig) -> None:
        self.hydra = hydra
        self.task = JobTask(task)
        self.config = config
        self.overrides = sweep_overrides(config)
        self.folder = sweep_folder(config)
        self.objective = str(config.objective)
        self.exit_code = 1

    @property
    def launcher(self) -> str:
        """The option of hydra/launcher."""
        return str(self.config.hydra.runtime.choices["hydra/launcher"])

    @property
    def has_own_launcher(self) -> bool:
        return is_ours(self.config.hydra.launcher)

    @contextmanager
    def open(self, shared: Mapping[str, str]) -> Iterator[None]:
        """Holds the folder of the sweep, and reads its command, with the jobs that the folder has.

        Args:
            shared: more of what all commands of the sweep have in common.

        Raises:
            CannotCreateError: another process runs this sweep, or its folder cannot be made.
            ConfigError: the folder holds another sweep.
            DataError: what it holds is damaged.
        """
        with hold_lock(self.folder / LOCK, f"{self.folder}: another process runs this sweep"):
            self.start = sweep_start(self.config, self.overrides)
            self.start["shared"] |= shared
            with suppress(InputNotFoundError):
                stored = read_sweep_start(self.folder)
                check_continued(stored, self.start, self.folder)
                self.start["jobs"] = stored["jobs"]
            yield

    @contextmanager
    def run(self) -> Iterator[None]:
        """Keeps the command, and opens the run of the sweep that its jobs are children of."""
        write_sweep_start(self.folder, self.start)
        OmegaConf.save(self.config, self.folder / "multirun.yaml")
        parents = [each for each in self.hydra.callbacks.callbacks if isinstance(each, ParentRun)]
        for parent in parents:
            parent.open(self.config)
        try:
            yield
        finally:
            for parent in parents:
                parent.close(self.config, self.exit_code)

    def continuation(self, *overrides: str) -> str:
        """How the jobs or trials that are missing are run, as the user of this sweep types it."""
        if not self.has_own_launcher and self.launcher != _IN_PROCESS:
            # The launcher of a plugin may run commands of its own, which `sweep.resume` does not start.
            folder = f"hydra.sweep.dir={self.folder}"
            return f"the same command with {shlex.join([folder, *overrides])}"
        if untyped(self.start):
            overrides = (f"{TRUST}=true", *overrides)
        return f"mlxlab train {shlex.join([f'sweep.resume={self.folder}', *overrides])}"

    def report(self, *, is_unfinished: bool) -> None:
        """Prints the table of the jobs, and how those that are missing are run."""
        sweep = read_sweep(self.folder)
        terminal.show(f"\n{describe_jobs(sweep)}; {self.folder}")
        if is_unfinished:
            print(f"continue: {self.continuation()}", flush=True)

    def compose(self, overrides: list[str], number: int) -> Job:
        return compose(self.hydra, self.config, overrides, number)

    def run_jobs(
        self,
        next_job: Callable[[], Job | None],
        end_job: Callable[[JobResult], None],
        batch_size: int,
    ) -> int:
        """`jobs.run_jobs` with the launcher of the config; returns the number of a signal that came, else 0.

        Args:
            batch_size: jobs at a time of a launcher that is not ours.
        """
        launcher: Any = Plugins.instance().instantiate_launcher(self.hydra, self.task, self.config)
        if self.has_own_launcher:
            jobs: Jobs = launcher.processes
        else:
            if self.launcher == _IN_PROCESS:
                batch_size = 1
            jobs = LaunchedJobs(launcher, self.launcher, self.folder, batch_size)
        with closing(jobs):
            run_jobs(jobs, next_job, end_job)
        return jobs.stop_signal


def sweep_start(config: DictConfig, overrides: Mapping[str, Override]) -> SweepStart:
    """The command of a sweep, from its config.

    Args:
        overrides: of all jobs, by key.
    """
    own = as_typed(config.hydra.overrides.hydra)
    typed = [text for text in own if not text.lstrip("+").startswith(_OF_FOLDER)]
    sources = config.hydra.runtime.config_sources
    named = (str(source.path) for source in sources if source.provider == "command-line")
    sweeper = str(config.hydra.runtime.choices["hydra/sweeper"])
    config_name = str(config.hydra.job.config_name)
    shared = {"hydra/sweeper": sweeper, "config_name": config_name}
    for key, override in overrides.items():
        shared[key.lstrip("+")] = SWEPT if override.is_sweep_override() else str(override.value())
    shared["objective"] = str(config.objective)
    return SweepStart(
        format=2,
        overrides=[*typed, *as_typed(config.hydra.overrides.task)],
        config_dir=next(named, None),
        config_name=config_name,
        sweeper=sweeper,
        shared=shared,
        jobs=[],
    )


def check_continued(stored: SweepStart, start: SweepStart, folder: Path) -> None:
    """Raises ConfigError, a line per problem, if a command would mix other jobs with those of the sweep in a folder.

    Values of a swept key may be added: also to a key that had one value, and now has several.
    """
    before = stored["shared"]
    now = start["shared"]
    problems = []
    for key in dict.fromkeys([*now, *before]):
        values = (now.get(key), before.get(key))
        if values[0] != values[1] and SWEPT not in values:
            new, old = (f"no {key}" if value is None else f"{key}={value}" for value in values)
            problems.append(f"{new}: the sweep in {folder} has {old}; {_ADVICE}")
    if start["sweeper"] != stored["sweeper"]:
        problems = problems[:1]  # Another sweeper has other settings.
    if problems:
        raise ConfigError("\n".join(problems[:10]))
