"""Runs a composed config as a job of Hydra, in an output folder of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from mlxlab.config.hydra.compose import Callbacks, Composer
from mlxlab.errors import CannotCreateError

Run = Callable[[DictConfig, Path], float]  # config without `hydra:` and output folder -> value of the objective


def run_as_job(composer: Composer, config: DictConfig, run: Run) -> tuple[Path, float | Exception]:
    """Runs `config`, as composed with its `hydra:` node; returns the output folder and the result of `run`.

    Raises:
        CannotCreateError: the output folder cannot be made.
    """

    def task(cfg: DictConfig) -> float:
        return run(cfg, Path(HydraConfig.get().runtime.output_dir))

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
    return folder, job.return_value if job.status == JobStatus.COMPLETED else cast(Exception, job._return_value)


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
    return CannotCreateError(f"{error.filename}: {error.strerror or error}; the run folder cannot be created")
