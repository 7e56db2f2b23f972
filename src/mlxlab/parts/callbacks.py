"""Builds the callbacks of a config."""

from pathlib import Path
from typing import cast

from mlxlab.config.instantiate import instantiate
from mlxlab.config.paths import project_root
from mlxlab.errors import ConfigError
from mlxlab.nearest import suggestion
from mlxlab.parts.data import Config
from mlxlab.parts.model import model_seed
from mlxlab.training.callback import Callback


def build_callbacks(cfg: Config, run_dir: Path) -> list[Callback]:
    """The callbacks of a config, in its order."""
    runtime = {"folder": run_dir, "cache": project_root() / ".cache", "seed": model_seed(cfg)}
    nodes = [node for node in cfg["callbacks"].values() if node is not None]
    return [check_callback(instantiate(node, **runtime)) for node in nodes]


def check_callback(candidate: object) -> Callback:
    """`candidate`, or a ConfigError if it is no callback, or has a method on_... that the loop never calls."""
    name = type(candidate).__qualname__
    if Callback not in type(candidate).__mro__:
        raise ConfigError(f"{name}: expected a subclass of {Callback.__module__}.Callback")
    known = [method for method in vars(Callback) if method.startswith("on_")]
    for method in dir(type(candidate)):  # An argument may be called on_error.
        if method.startswith("on_") and method not in known:
            raise ConfigError(f"{name}.{method}: no event of the loop{suggestion(method, known)}")
    return cast(Callback, candidate)
