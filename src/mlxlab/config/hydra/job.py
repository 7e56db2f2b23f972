"""Jobs of Hydra: a composed config runs in an output folder of its own; those of a sweep are composed one by one."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mlxlab.config.hydra.compose import Callbacks, Composer
from mlxlab.errors import CannotCreateError, ConfigError

Run = Callable[
    [DictConfig, Path], float
]  # config without `hydra:` and output folder -> value of the objective


def run_as_job(composer: Composer, config: DictConfig, run: Run) -> tuple[Path, float | Exception]:
    """Runs `config`, as composed with its `hydra:` node; returns the output folder and the result of `run`.

    Raises:
        CannotCreateError: the output folder cannot be made.
    """

    def task(cfg: DictConfig) -> float:
        return run(cfg, enter_job())

    config.hydra.mode = RunMode.RUN
    callbacks = Callbacks(config)
    callbacks.on_run_start(config=config, config_name="train")
    context = HydraContext(config_loader=composer.hydra.config_loader, callbacks=callbacks)
    try:
        job = run_job(task, config, "hydra.run.dir", None, context)
    except OSError as error:
        raise run_folder_error(error) from error
    callbacks.on_run_end(config=config, config_name="train", job_return=job)
    assert job.hydra_cfg is not None
    folder = Path(job.hydra_cfg.hydra.runtime.output_dir)
    return folder, job.return_value if job.status == JobStatus.COMPLETED else cast(
        Exception, job._return_value
    )


def enter_job() -> Path:
    """The output folder of the job of this process, which goes back to where it was started: `hydra.job.chdir` left it."""
    runtime = HydraConfig.get().runtime
    os.chdir(runtime.cwd)
    return Path(runtime.output_dir)


def is_sweep_job() -> bool:
    """Whether this process runs a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


@contextmanager
def job_config(config: DictConfig) -> Iterator[None]:
    """What a job would find in HydraConfig, its overrides above all, without an output folder."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def run_folder_error(error: OSError) -> CannotCreateError:
    return CannotCreateError(
        f"{error.filename}: {error.strerror or error}; the run folder cannot be created"
    )


def compose_job(
    loader: ConfigLoader, sweep: DictConfig, overrides: list[str], number: int
) -> DictConfig:
    """The config of job `number` of a sweep, with its `hydra:` node."""
    config = loader.load_sweep_config(sweep, overrides)
    _set_number(config, number)
    return config


def job_folder(config: DictConfig) -> Path:
    """The folder of a composed job; ConfigError if it is not inside that of the sweep."""
    with job_config(config):
        folder, subdir = Path(str(config.hydra.sweep.dir)), str(config.hydra.sweep.subdir)
    if Path(subdir).is_absolute() or ".." in Path(subdir).parts or not Path(subdir).parts:
        raise ConfigError(
            f"hydra.sweep.subdir={subdir}: expected a folder inside that of the sweep"
        )
    return folder.absolute() / subdir


def job_digest(config: DictConfig) -> str:
    """A hash of the resolved config of a job, equal in every folder."""
    number = config.hydra.job.num
    try:
        _set_number(config, 0)
        with job_config(config), read_write(config.hydra), open_dict(config.hydra):
            config.hydra.runtime.output_dir = "(the run folder)"
            values = {
                key: OmegaConf.to_object(config[key])
                if OmegaConf.is_config(config[key])
                else config[key]
                for key in config
                if key != "hydra"
            }
    finally:
        _set_number(config, number)
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _set_number(config: DictConfig, number: int) -> None:
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.job.id, config.hydra.job.num = str(number), number
