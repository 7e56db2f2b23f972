"""Runs the jobs of a sweep under Hydra."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from mlxlab.cli.app import report
from mlxlab.config.check import check
from mlxlab.config.hydra.compose import Callbacks, Composer
from mlxlab.config.hydra.job import enter_job, run_folder_error
from mlxlab.config.hydra.overrides import as_typed
from mlxlab.config.issues import one_line
from mlxlab.distributed.launch_env import is_launched
from mlxlab.errors import ConfigError, UserError
from mlxlab.experiment.experiment import fetch_resumed_run
from mlxlab.files.untrusted import refuse_links
from mlxlab.sweep.job import JobTask
from mlxlab.sweep.parent_run import sweep_folder
from mlxlab.terminal.messages import configure_logging

OWN_PLUGINS = "hydra_plugins.mlxlab_sweep."

logger = logging.getLogger(__name__)


@dataclass
class JobRunner:
    """One job, called by Hydra with its config; returns the metric named by `objective`. Records failed jobs.

    Args:
        prints_errors: also those that the user can correct; a launcher of mlxlab lists them itself.
    """

    run: Callable[[DictConfig, Path], float]
    prints_errors: bool = True
    started: int = 0
    failures: dict[str, int] = field(default_factory=dict)  # job number -> exit code

    def __call__(self, config: DictConfig) -> float:
        configure_logging()  # in a process of its own
        hydra = HydraConfig.get()
        folder = enter_job()
        self.started += 1
        try:
            check(config)  # a sweeper may propose jobs as it goes
            if fetched := fetch_resumed_run([*hydra.overrides.task, f"resume={config.resume}"]):
                config.resume = str(fetched)
            return self.run(config, folder)
        except Exception as error:  # the other jobs run
            if isinstance(error, UserError) and not self.prints_errors:
                raise
            print(
                f"job {hydra.job.num} ({', '.join(hydra.overrides.task)}):",
                end=" ",
                file=sys.stderr,
            )
            self.failures[str(hydra.job.num)] = report(error)
            raise


def sweep(composer: Composer, config: DictConfig, run: Callable[[DictConfig, Path], float]) -> int:
    """Every job of a sweep; a failed one does not end the others. Returns the exit code of the first that failed."""
    if is_launched():
        raise ConfigError(
            "-m: expected a single process for a sweep, got a launcher; start its jobs one by one"
        )
    config.hydra.mode = RunMode.MULTIRUN
    config.hydra.overrides.hydra.append(
        "hydra.mode=MULTIRUN"
    )  # each job is composed again, and must know
    refuse_links(sweep_folder(config))
    is_own = config.hydra.launcher._target_.startswith(OWN_PLUGINS)
    callbacks, task = Callbacks(config), JobRunner(run, prints_errors=not is_own)
    context = HydraContext(config_loader=composer.hydra.config_loader, callbacks=callbacks)
    if config.hydra.sweeper._target_.startswith(OWN_PLUGINS):
        return _sweep(config, context, task)
    if is_own:
        raise ConfigError("hydra/sweeper: expected hydra/launcher=basic or one of a plugin")
    callbacks.on_multirun_start(config=config, config_name="train")
    sweeper = Plugins.instance().instantiate_sweeper(
        hydra_context=context, task_function=JobTask(task), config=config
    )
    try:
        sweeper.sweep(arguments=as_typed(config.hydra.overrides.task))
    except Exception as error:
        if (
            isinstance(error, OSError) and not task.failures
        ):  # the sweep itself, not one of its jobs
            raise run_folder_error(error) from error
        if isinstance(error, AssertionError | ValueError) and not task.started:
            raise ConfigError(
                f"hydra.sweeper: {one_line(str(error)) or 'invalid settings'}"
            ) from error
        if not task.failures:
            raise
        print(
            f"{len(task.failures)} of {task.started} jobs failed: {', '.join(task.failures)}",
            file=sys.stderr,
        )
        return next(iter(task.failures.values()))
    finally:
        callbacks.on_multirun_end(config=config, config_name="train")
    return 0


def _sweep(config: DictConfig, context: HydraContext, task: JobRunner) -> int:
    """Runs all jobs with one of our sweepers, which call Hydra's callbacks; returns the exit code."""
    sweeper: Any = Plugins.instance().instantiate_sweeper(
        hydra_context=context, task_function=task, config=config
    )
    try:
        exit_code: int = sweeper.sweep([])
        return exit_code
    except OSError as error:
        raise run_folder_error(error) from error
