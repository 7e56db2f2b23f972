"""Builds the launcher of a config."""

from typing import Any

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from mlxlab.config.instantiate import instantiate
from mlxlab.errors import ConfigError
from mlxlab.sweep.launcher.jobs import Jobs, SweepContext

_OWN = "mlxlab.sweep.launcher."


def is_own(config: DictConfig) -> bool:
    """Whether `hydra.launcher` is one of this package, or one of Hydra or of its plugins."""
    return str(config.hydra.launcher._target_).startswith(_OWN)


def open_jobs(config: DictConfig, hydra: HydraContext, task: TaskFunction) -> Jobs:
    """The launcher of a sweep, to be used in a `with` block.

    Raises:
        ConfigError: it is one of Hydra's own or of a plugin, or its settings are not for this machine.
    """
    if not is_own(config):
        name = config.hydra.runtime.choices["hydra/launcher"]
        raise ConfigError(
            f"hydra/launcher={name}: expected isolated or in_process with this sweeper"
        )
    node: Any = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    jobs: Jobs = instantiate(node, context=SweepContext(config, hydra, task))
    return jobs
