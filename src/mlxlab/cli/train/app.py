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
from omegaconf import DictConfig, OmegaConf, read_write

from mlxlab import terminal
from mlxlab.config.check import check, labelled, resolve
from mlxlab.config.hydra.compose import PRIMARY, VERSION_BASE, find_issues, set_up
from mlxlab.config.hydra.job import as_typed, check_folder, job_config
from mlxlab.config.issues import ConfigIssue, format_issues
from mlxlab.config.schema.validate import Checker
from mlxlab.errors import ConfigError
from mlxlab.files.atomic import make_folder
from mlxlab.files.untrusted import refuse_links
from mlxlab.run import entry
from mlxlab.schema.dotted_keys import join_key, override_name
from mlxlab.sweep import is_ours
from mlxlab.terminal.wording import counted, one_line
from mlxlab.training.distributed.launch_env import check_parallel, is_launched

set_up()
_MAX_ROWS = 100  # Jobs of a sweep that `--dry-run` lists.


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


def check_sweep(config: DictConfig) -> list[list[str]]:
    """Checks a sweep and all its jobs; returns the overrides of each job.

    Raises:
        ConfigError, NotAllowedError, InputNotFoundError: something is wrong with a job, or the sweep.
    """
    if is_launched():
        raise ConfigError(
            "-m: expected a single process for a sweep, got a launcher; start its jobs one by one"
        )
    issues = _plugin_issues(config)
    if issues:
        raise ConfigError(format_issues(issues))
    with job_config(config):
        check_folder(config, "hydra.sweep.dir")
        refuse_links(Path(config.hydra.sweep.dir))
    from mlxlab.sweep.jobs_to_check import jobs_to_check  # A run does not need it.

    jobs = jobs_to_check(config)
    _check_jobs(config, jobs)
    return jobs


def show_sweep(jobs: list[list[str]]) -> None:
    """Prints the jobs that were checked: those of a grid, or of a search some with every choice and end."""
    lines = [f"{counted(len(jobs), 'job')} checked"]
    for number, texts in enumerate(jobs[:_MAX_ROWS]):
        lines.append(f"{number}: {' '.join(texts)}")
    if len(jobs) > _MAX_ROWS:
        lines.append(f"... and {len(jobs) - _MAX_ROWS} more")
    terminal.show("\n".join(lines))


def _check_jobs(config: DictConfig, jobs: list[list[str]]) -> None:
    issues = []
    hydra = as_typed(config.hydra.overrides.hydra)
    name = str(config.hydra.job.config_name)
    objectives: dict[str, None] = {}
    forced = set()
    for texts in jobs:
        job, found = find_issues([*hydra, *texts], name)
        issues += found
        if job is None or issues:
            continue
        entry.check_named_run(job.resume)
        data, _ = resolve(job.data)
        entry.check_named_files(data)
        entry.check_split_of(data)
        check_parallel(job.trainer.parallel)
        objectives[str(job.objective)] = None
        composed = as_typed(job.hydra.overrides.task)
        forced |= {override_name(text) for text in composed if text.startswith("++")}
    if len(objectives) > 1:
        names = " and ".join(objectives)
        issues.append(ConfigIssue("objective", f"the jobs have {names}; choose one: objective=..."))
    if issues:
        raise ConfigError(format_issues(issues))
    if not jobs:
        raise ConfigError("the sweep is empty: one of its ranges has no values")
    _complete(config, forced, next(iter(objectives)))


def _complete(config: DictConfig, forced: set[str], objective: str) -> None:
    """Gives the config of the sweep what its jobs have in common.

    Args:
        forced: keys that a job only has if they are added, as those of `tags`.
    """
    config.objective = objective  # A swept option may have set it in the jobs alone.
    texts = as_typed(config.hydra.overrides.task)
    with read_write(config.hydra):
        config.hydra.overrides.task = [
            f"++{text.lstrip('+')}" if override_name(text) in forced else text for text in texts
        ]


def _plugin_issues(config: DictConfig) -> list[ConfigIssue]:
    """The errors in the sweeper and the launcher; those of plugins have a schema of their own."""
    issues = []
    for name in ("hydra.sweeper", "hydra.launcher"):
        node = config.hydra[name.partition(".")[2]]
        if not isinstance(node, DictConfig) or "_target_" not in node:
            issues.append(
                ConfigIssue(
                    f"{name}={one_line(str(node), 120)}",
                    f"expected a component; choose one with {name.replace('.', '/')}=...",
                )
            )
        elif is_ours(node):
            values, unresolved = resolve(node)
            issues += Checker(values).check_node(values, str(node._target_), name)
            issues += [ConfigIssue(join_key(name, each.path), each.message) for each in unresolved]
    if not issues and not is_ours(config.hydra.sweeper):
        if is_ours(config.hydra.launcher):
            issues.append(
                ConfigIssue("hydra/sweeper", "expected hydra/launcher=basic or one of a plugin")
            )
        size = config.hydra.sweeper.get("max_batch_size")  # Hydra's own sweeper asserts it.
        if size is not None and size < 1:
            issues.append(
                ConfigIssue(
                    "hydra.sweeper.max_batch_size", f"expected at least 1, or null, got {size}"
                )
            )
    return labelled(issues, {"hydra": OmegaConf.to_container(config.hydra, resolve=False)})
