"""Composes and checks configs with Hydra's Compose API: for the commands, the Python API and the jobs of a sweep."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mlxlab.config.check import config_issues, register_resolvers
from mlxlab.config.hydra.job import job_config, set_number
from mlxlab.config.hydra.refusals import compose_valid
from mlxlab.config.issues import ConfigIssue, format_issues
from mlxlab.config.plugins import typed_folders
from mlxlab.errors import ConfigError, hides_interrupt

VERSION_BASE = "1.3"
PRIMARY = "train"
# An `override hydra/launcher` in the primary config would silently win over that of an experiment.
_DEFAULTS = {"launcher": "isolated", "sweeper": "grid"}


def set_up() -> None:
    """Makes the resolvers of conf/ known, and our launcher and sweeper the default ones of this process."""
    register_resolvers()
    store = ConfigStore.instance()
    node = store.load("hydra/config.yaml").node
    with open_dict(node), read_write(node):
        for default in node.defaults:
            for group in _DEFAULTS.keys() & default.keys():
                default[group] = _DEFAULTS[group]
    store.store(group="hydra", name="config", node=node, provider="hydra")


@contextmanager
def open_hydra(config_dir: Path | None = None) -> Iterator[None]:
    """Opens the Compose API, also within a running app.

    Args:
        config_dir: a folder of config files, as of `--config-dir`.
    """
    set_up()
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    if config_dir is not None:
        typed_folders["command-line"] = config_dir
    try:
        with hydra.initialize(None, PRIMARY, version_base=VERSION_BASE):
            yield
    finally:
        if config_dir is not None:
            del typed_folders["command-line"]
        GlobalHydra.instance().hydra = running


def find_issues(
    overrides: list[str], name: str = PRIMARY, *, refused: bool = False
) -> tuple[DictConfig | None, list[ConfigIssue]]:
    """What the open Hydra composes, None if nothing; and all that is wrong with it.

    Args:
        refused: Hydra is known to refuse the overrides.
    """
    config: DictConfig | None = None
    issues: list[ConfigIssue] = []
    try:
        if not refused:
            config = hydra.compose(name, overrides, return_hydra_config=True)
    except Exception as error:
        if hides_interrupt(error):
            raise KeyboardInterrupt from None
    if config is None:
        config, issues = compose_valid(overrides, name)
    if config is not None:
        set_number(config, 0)
        with job_config(config):
            issues += config_issues(config)
    return config, issues


def compose(overrides: Sequence[str], config_dir: Path | None = None) -> DictConfig:
    """The checked config of `train` with these overrides, with its `hydra` node.

    Raises:
        ConfigError: the config is invalid; at most ten lines.
        NotAllowedError: it holds a target that may not be built.
    """
    with open_hydra(config_dir):
        config, issues = find_issues(list(overrides))
    if issues or config is None:
        raise ConfigError(format_issues(issues))
    return config


def compose_checked(
    overrides: Sequence[str], config_dir: Path | None = None, *, resolve: bool = True
) -> dict[str, Any]:
    """The values of `compose`, without the `hydra` node."""
    config = compose(overrides, config_dir)
    with job_config(config):
        values: Any = OmegaConf.to_container(without_hydra(config), resolve=resolve)
        return values


def without_hydra(config: DictConfig) -> DictConfig:
    """The config of the experiment, without the `hydra` node."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
