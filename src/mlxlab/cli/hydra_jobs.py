"""Runs one experiment or a sweep of them under Hydra, whose import takes a while: imported only where one runs."""

import atexit
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from mlxlab.cli.app import report
from mlxlab.config.check import check
from mlxlab.config.hydra.compose import Callbacks, Composer, without_hydra
from mlxlab.config.issues import one_line
from mlxlab.config.paths import conf_dir
from mlxlab.config.resume_overrides import find_resumed_run
from mlxlab.distributed.launch_env import check_parallel, is_launched, rank
from mlxlab.errors import CannotCreateError, ConfigError, RunInterrupted, UserError
from mlxlab.experiment.manifest import remove_unused


def compose(args: list[str], *, resolve: bool) -> dict[str, Any]:
    """The checked config that `train` would run with these arguments."""
    config = OmegaConf.to_container(without_hydra(Composer(conf_dir(), args).checked()), resolve=resolve)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


@dataclass
class JobRunner:
    """One job, called by Hydra with its config; returns the metric named by `objective`. Records failed jobs."""

    is_last: bool = False  # the process ends after this job
    started: int = 0
    failures: dict[str, int] = field(default_factory=dict)  # job number -> exit code

    def __call__(self, config: DictConfig) -> float:
        hydra = HydraConfig.get()
        self.started += 1
        try:
            if hydra.mode == RunMode.MULTIRUN:  # a sweeper may propose jobs as it goes
                check(config)
            from mlxlab.experiment.run import run_experiment  # imports MLX

            return run_experiment(config, Path(hydra.runtime.output_dir), is_last=self.is_last)
        except Exception as error:
            if hydra.mode == RunMode.MULTIRUN:  # the other jobs run, also after a signal stopped this one
                print(f"job {hydra.job.num} ({', '.join(hydra.overrides.task)}):", end=" ", file=sys.stderr)
                self.failures[str(hydra.job.num)] = report(error)
            raise


def run(composer: Composer, config: DictConfig, owns_process: bool) -> int:
    """One run in its own folder, under Hydra; returns the exit code. `owns_process`: the process ends after it."""
    check_parallel(config.trainer.parallel)
    config.hydra.mode = RunMode.RUN
    own = find_resumed_run(config.get("resume"))
    if own and not any(arg.startswith("hydra.run.dir=") for arg in config.hydra.overrides.hydra):
        config.hydra.run.dir = str(own)
    if rank() > 0:  # rank 0 writes the run folder; what Hydra writes for this rank is discarded
        config.hydra.run.dir = tempfile.mkdtemp(prefix="mlxlab-")
        atexit.register(shutil.rmtree, config.hydra.run.dir, ignore_errors=True)
    callbacks, runner = Callbacks(config), JobRunner(owns_process)
    callbacks.on_run_start(config=config, config_name="train")
    context = HydraContext(config_loader=composer.hydra.config_loader, callbacks=callbacks)
    try:
        job = run_job(runner, config, job_dir_key="hydra.run.dir", job_subdir_key=None, hydra_context=context)
    except OSError as error:
        raise _cannot_create(error) from error
    callbacks.on_run_end(config=config, config_name="train", job_return=job)
    if job.status == JobStatus.COMPLETED:
        return 0
    failure = job._return_value
    assert job.hydra_cfg is not None
    if isinstance(failure, UserError) and not isinstance(failure, RunInterrupted):
        remove_unused(Path(job.hydra_cfg.hydra.runtime.output_dir))
    return report(failure)


def sweep(composer: Composer, config: DictConfig) -> int:
    """Every job of a sweep; a failed one does not end the others. Returns the exit code of the first that failed."""
    check_parallel(config.trainer.parallel)
    if is_launched():
        raise ConfigError("-m: expected a single process for a sweep, got a launcher; start its jobs one by one")
    config.hydra.mode = RunMode.MULTIRUN
    config.hydra.overrides.hydra.append("hydra.mode=MULTIRUN")  # each job is composed again, and must know
    callbacks, task = Callbacks(config), JobRunner()
    callbacks.on_multirun_start(config=config, config_name="train")
    context = HydraContext(config_loader=composer.hydra.config_loader, callbacks=callbacks)
    sweeper = Plugins.instance().instantiate_sweeper(hydra_context=context, task_function=task, config=config)
    try:
        sweeper.sweep(arguments=list(config.hydra.overrides.task))
    except Exception as error:
        if isinstance(error, OSError) and not task.failures:  # the sweep itself, not one of its jobs
            raise _cannot_create(error) from error
        if isinstance(error, AssertionError | ValueError) and not task.started:
            raise ConfigError(f"hydra.sweeper: {one_line(str(error)) or 'invalid settings'}") from error
        if not task.failures:
            raise
        print(f"{len(task.failures)} of {task.started} jobs failed: {', '.join(task.failures)}", file=sys.stderr)
        return next(iter(task.failures.values()))
    finally:
        callbacks.on_multirun_end(config=config, config_name="train")
    return 0


def _cannot_create(error: OSError) -> UserError:
    return CannotCreateError(f"{error.filename}: {error.strerror or error}; the run folder cannot be created")
