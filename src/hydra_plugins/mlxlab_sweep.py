"""The sweepers and the launcher of mlxlab, under the name by which Hydra finds plugins.

Hydra imports this module in every command, so each class imports its work when it is used.
"""

from collections.abc import Sequence
from typing import Unpack

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from mlxlab.sweep.settings import GridSettings, PairedSettings, ProcessSettings, SearchSettings


class SetUp:
    """The `setup` that our sweepers share."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from mlxlab.sweep.app import SweepApp

        self.app = SweepApp(hydra_context, task_function, config)


class GridSweeper(SetUp, Sweeper):
    """Runs every combination of the values that the command line or `params` gives."""

    def __init__(self, **settings: Unpack[GridSettings]) -> None:
        self.settings = settings

    def sweep(self, arguments: list[str]) -> int:
        """Returns the exit code."""
        from mlxlab.sweep.grid import run_grid

        return run_grid(self.app, self.settings)


class SearchSweeper(SetUp, Sweeper):
    """Runs the trials that a sampler proposes."""

    def __init__(self, **settings: Unpack[SearchSettings]) -> None:
        self.settings = settings

    def sweep(self, arguments: list[str]) -> int:
        """Returns the exit code."""
        from mlxlab.sweep.search import run_search

        return run_search(self.app, self.settings)


class PairedSweeper(SetUp, Sweeper):
    """Trains the runs of the trial whose question is in the folder of the sweep."""

    def __init__(self, **settings: Unpack[PairedSettings]) -> None:
        self.settings = settings

    def sweep(self, arguments: list[str]) -> int:
        """Returns the exit code."""
        from mlxlab.sweep.paired import run_trial

        return run_trial(self.app, self.settings["seconds"])


class ProcessLauncher(Launcher):
    """Runs each job in a process of its own, forked from a server that has imported what jobs need."""

    def __init__(self, **settings: Unpack[ProcessSettings]) -> None:
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from mlxlab.sweep.processes import JobProcesses

        self.processes = JobProcesses(hydra_context, task_function, config, self.settings)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """The interface for sweepers of Hydra and of other plugins."""
        from mlxlab.sweep.processes import launch

        return launch(self.processes, job_overrides, initial_job_idx)
