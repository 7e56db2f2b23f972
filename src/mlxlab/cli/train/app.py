"""The Hydra app that trains: its task, and the check of its config before anything is written."""

import gc
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, read_write

from mlxlab import terminal
from mlxlab.config.check import check
from mlxlab.config.hydra.compose import PRIMARY, VERSION_BASE, set_up
from mlxlab.config.hydra.job import job_config
from mlxlab.config.hydra.overrides import as_typed
from mlxlab.files.new_folder import make_folder
from mlxlab.run import entry

set_up()


@dataclass
class Command:
    """The command line that this process runs.

    Args:
        overrides: as typed.
        resumed: options that were added to them, of the run that is resumed.
        is_valid: its config was composed and checked.
        has_begun: its run or sweep began.
        owns_process: the process ends after it.
    """

    overrides: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    dry_run: bool = False
    is_valid: bool = False
    has_begun: bool = False
    owns_process: bool = False


command = Command()


def train(config: DictConfig) -> float:
    """Runs one experiment in its folder; returns the best value of its objective."""
    logging.getLogger("mlxlab").handlers.clear()  # Hydra has installed those of hydra/job_logging.
    command.has_begun = True
    job = HydraConfig.get()
    os.chdir(job.runtime.cwd)  # Paths are those of the working directory despite hydra.job.chdir.
    folder = Path(job.runtime.output_dir)
    if job.mode == RunMode.MULTIRUN:
        check(config)  # A sweeper may propose jobs as it goes.
        fetched = entry.fetch_resumed_run([*job.overrides.task, f"resume={config.resume}"])
        if fetched:
            config.resume = str(fetched)
        return entry.run_experiment(config, folder)
    if "check" not in job.callbacks:  # The primary config is one of the user.
        check(config)
    try:
        return entry.run_prepared(config, folder, owns_process=command.owns_process)
    except Exception as error:
        raise SystemExit(error) from error  # Else Hydra would print the overrides first.


class CheckConfig(Callback):
    """Checks a config before Hydra writes anything, and ends the command with what is wrong."""

    def on_run_start(self, config: DictConfig, **_: object) -> None:
        try:
            with job_config(config):
                _prepare_run(config)
        except Exception as error:
            raise SystemExit(error) from error  # Hydra makes a warning of another exception.

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        from mlxlab.cli.train.sweep_check import check_sweep, show_sweep  # A run needs neither.

        try:
            jobs = check_sweep(config)
        except Exception as error:
            raise SystemExit(error) from error
        command.has_begun = True
        if command.dry_run:
            show_sweep(jobs)
            raise SystemExit


def _prepare_run(config: DictConfig) -> None:
    check(config)
    command.is_valid = True
    entry.prepare_run(config)
    entry.check_run_to_continue(command.overrides)
    with read_write(config.hydra):
        typed = as_typed(config.hydra.overrides.task)
        config.hydra.overrides.task = [text for text in typed if text not in command.resumed]
    if command.dry_run:
        gc.enable()
        terminal.show(entry.preview(config))
        raise SystemExit
    make_folder(Path(config.hydra.run.dir))


# Two names: launchers pickle the function, and must find it as `train` in this module.
app = hydra.main(version_base=VERSION_BASE, config_path=None, config_name=PRIMARY)(train)
