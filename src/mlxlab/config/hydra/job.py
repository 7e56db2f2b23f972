"""Jobs of Hydra: a composed config has an output folder; those of a sweep are composed one by one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mlxlab.config.hydra.refusals import explain
from mlxlab.errors import ConfigError

_NO_FOLDER = "(the run folder)"


def is_sweep_job() -> bool:
    """Whether this process runs a job of a sweep."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


@contextmanager
def job_config(config: DictConfig, folder: str = _NO_FOLDER) -> Iterator[None]:
    """What a job would find in HydraConfig, its overrides above all.

    Args:
        folder: of the job, by default a placeholder.
    """
    before = HydraConfig.instance().cfg
    runtime = config.hydra.runtime
    if OmegaConf.is_missing(runtime, "output_dir") or runtime.output_dir == _NO_FOLDER:
        with read_write(config.hydra), open_dict(config.hydra):
            runtime.output_dir = folder
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def check_folder(config: DictConfig, key: str) -> None:
    """ConfigError for a folder without a name: Hydra would use the current one, or one called None."""
    try:
        folder = OmegaConf.select(config, key)
    except (OmegaConfBaseException, ConfigError) as error:
        raise ConfigError(f"{key}: {explain(error)}") from None
    if folder in (None, "", "-", "."):
        raise ConfigError(f"{key}={folder or ''}: expected the path of a folder")
    expanded = os.path.expanduser(str(folder))
    if expanded != str(folder):
        raise ConfigError(f"{key}={folder}: ~ is not expanded here; expected {expanded}")


def job_folder(config: DictConfig) -> Path:
    """The folder of a composed job; ConfigError if it is not inside that of the sweep."""
    with job_config(config):
        sweep = os.path.abspath(config.hydra.sweep.dir)
        subdir = str(config.hydra.sweep.subdir)
    folder = Path(os.path.abspath(os.path.join(sweep, subdir)))
    if Path(sweep) not in folder.parents:
        expected = "expected a folder inside that of the sweep"
        raise ConfigError(f"hydra.sweep.subdir={subdir}: {expected}")
    return folder


def set_number(config: DictConfig, number: int) -> None:
    """Numbers a job of a sweep, as Hydra does where it starts one."""
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.job.id = str(number)
        config.hydra.job.num = number
