"""Runs the jobs of a sweep under Hydra."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from mlxlab.cli.app import report
from mlxlab.config.check import check
from mlxlab.config.hydra.compose import Callbacks, Composer
from mlxlab.config.hydra.job import run_folder_error
from mlxlab.config.hydra.overrides import as_typed
from mlxlab.config.instantiate import instantiate
from mlxlab.config.issues import one_line
from mlxlab.distributed.launch_env import is_launched
from mlxlab.errors import ConfigError
from mlxlab.experiment.experiment import fetch_resumed_run


@dataclass
class JobRunner:
    """One job, called by Hydra with its config; returns the metric named by `objective`. Records failed jobs."""

    run: Callable[[DictConfig, Path], float]
    started: int = 0
    failures: dict[str, int] = field(default_factory=dict)  # job number -> exit code

    def __call__(self, config: DictConfig) -> float:
        hydra = HydraConfig.get()
        self.started += 1
        try:
            check(config)  # a sweeper may propose jobs as it goes
            if fetched := fetch_resumed_run([*hydra.overrides.task, f"resume={config.resume}"]):
                config.resume = str(fetched)
            return self.run(config, Path(hydra.runtime.output_dir))
        except Exception as error:  # the other jobs run, also after a signal stopped this one
            print(f"job {hydra.job.num} ({', '.join(hydra.overrides.task)}):", end=" ", file=sys.stderr)
            self.failures[str(hydra.job.num)] = report(error)
            raise


def sweep(composer: Composer, config: DictConfig, run: Callable[[DictConfig, Path], float]) -> int:
    """Every job of a sweep; a failed one does not end the others. Returns the exit code of the first that failed."""
    if is_launched():
        raise ConfigError("-m: expected a single process for a sweep, got a launcher; start its jobs one by one")
    config.hydra.mode = RunMode.MULTIRUN
    config.hydra.overrides.hydra.append("hydra.mode=MULTIRUN")  # each job is composed again, and must know
    callbacks, task = Callbacks(config), JobRunner(run)
    context = HydraContext(config_loader=composer.hydra.config_loader, callbacks=callbacks)
    if not config.hydra.sweeper._target_.startswith("hydra."):
        return _search(config, context, task)
    callbacks.on_multirun_start(config=config, config_name="train")
    sweeper = Plugins.instance().instantiate_sweeper(hydra_context=context, task_function=task, config=config)
    try:
        sweeper.sweep(arguments=as_typed(config.hydra.overrides.task))
    except Exception as error:
        if isinstance(error, OSError) and not task.failures:  # the sweep itself, not one of its jobs
            raise run_folder_error(error) from error
        if isinstance(error, AssertionError | ValueError) and not task.started:
            raise ConfigError(f"hydra.sweeper: {one_line(str(error)) or 'invalid settings'}") from error
        if not task.failures:
            raise
        print(f"{len(task.failures)} of {task.started} jobs failed: {', '.join(task.failures)}", file=sys.stderr)
        return next(iter(task.failures.values()))
    finally:
        callbacks.on_multirun_end(config=config, config_name="train")
    return 0


class Search(Protocol):
    """What `hydra/sweeper=search` builds."""

    def sweep(self) -> int:
        """Runs all trials; returns the exit code."""


def _search(config: DictConfig, context: HydraContext, task: JobRunner) -> int:
    """Hydra itself builds sweepers of the package `hydra_plugins` only, which it imports in every command."""
    node: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    search: Search = instantiate(node, config=config, context=context, task=task)
    try:
        return search.sweep()
    except OSError as error:
        raise run_folder_error(error) from error
