"""Reads the config files that benchmarks build models, data sets and steps from."""

from typing import Any

from omegaconf import OmegaConf

from mlxlab.config.paths import conf_dir


def read_config(option: str) -> dict[str, Any]:
    """A file of `conf/`, without its defaults list."""
    node: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / f"{option}.yaml"), resolve=False)
    return {key: value for key, value in node.items() if key != "defaults"}
