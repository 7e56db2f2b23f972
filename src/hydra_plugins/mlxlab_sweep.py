"""The config files, the sweepers and the launcher of mlxlab, under the name by which Hydra finds plugins.

Hydra imports this module in every command, so each class imports its work when it is used.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.utils import JobReturn
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mlxlab.sweep.settings import GridSettings, ProcessSettings, SearchSettings


class MlxlabSearchPath(SearchPathPlugin):
    """Adds the folders of config files of mlxlab and of its command line."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if "mlxlab.config.hydra.compose" not in sys.modules:
            return  # This is another Hydra program of the same environment.
        from mlxlab.config.paths import search_folders

        for provider, folder in search_folders().items():
            search_path.append(provider, f"{ConfigFiles.scheme()}://{folder}")


class ConfigFiles(ConfigSource):
    """The files of a folder, each read once, for Hydra composes twice, and within limits."""

    @staticmethod
    def scheme() -> str:
        return "mlxlab"

    def load_config(self, config_path: str) -> ConfigResult:
        from mlxlab.files.yaml_file import read_yaml

        content = read_yaml(self._file(config_path))
        header = self._get_header_dict(content.text)
        values = OmegaConf.create(content.values)
        return ConfigResult(self.provider, self.full_path(), values, header)

    def available(self) -> bool:
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        return Path(self.path, config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        return self._file(config_path).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        names: list[str] = []
        for path in Path(self.path, config_path).iterdir():
            inner = path.relative_to(self.path).as_posix()
            self._list_add_result(names, inner, path.name, results_filter)
        return sorted(set(names))

    def _file(self, config_path: str) -> Path:
        return Path(self.path, self._normalize_file_name(config_path))


class SetUp:
    """The `setup` that our sweepers share."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from mlxlab.sweep.app import SweepApp

        self.app = SweepApp(hydra_context, task_function, config)


def end_sweep(exit_code: int) -> None:
    """Ends the command with the exit code of a sweep; Hydra itself has none."""
    if exit_code:
        sys.exit(exit_code)


class GridSweeper(SetUp, Sweeper):
    """Runs every combination of the values that the command line or `params` gives."""

    def __init__(self, **settings: Unpack[GridSettings]) -> None:
        self.settings = settings

    def sweep(self, arguments: list[str]) -> None:
        from mlxlab.sweep.grid import run_grid

        end_sweep(run_grid(self.app, self.settings))


class SearchSweeper(SetUp, Sweeper):
    """Runs the trials that a sampler proposes."""

    def __init__(self, **settings: Unpack[SearchSettings]) -> None:
        self.settings = settings

    def sweep(self, arguments: list[str]) -> None:
        from mlxlab.sweep.search import run_search

        end_sweep(run_search(self.app, self.settings))


class ProcessLauncher(Launcher):
    """Runs each job in a process of its own, forked from a server that has imported what jobs need."""

    def __init__(self, **settings: Unpack[ProcessSettings]) -> None:
        self.settings = settings

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        from mlxlab.sweep.jobs import JobTask
        from mlxlab.sweep.processes import JobProcesses

        assert isinstance(task_function, JobTask)
        self.processes = JobProcesses(hydra_context, task_function, config, self.settings)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        raise NotImplementedError  # Our sweepers use `processes`, and others are refused with this launcher.
