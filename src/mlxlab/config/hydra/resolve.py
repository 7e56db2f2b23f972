"""Resolves every interpolation of a Hydra config to Python values and collects the errors."""

import os
import re
import secrets
from typing import Any

from omegaconf import Container, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)

from mlxlab.config.issues import MISSING, UNRESOLVED, ConfigIssue, join_key, one_line, walk
from mlxlab.config.paths import project_root
from mlxlab.config.suggest import did_you_mean, nearest
from mlxlab.errors import ConfigError
from mlxlab.redact import has_credentials

# A config is printed, stored and tracked, so only variables that never hold a secret can be read in one.
_READABLE = re.compile(r"MLXLAB_\w+|HOME|USER|TMPDIR|HOSTNAME|SCRATCH|SLURM_(JOB|ARRAY)_\w+")


def register_resolvers() -> None:
    """Registers `${name:...}` for conf/, in addition to those of OmegaConf and Hydra."""
    OmegaConf.register_new_resolver("oc.env", read_environment, replace=True)
    OmegaConf.register_new_resolver("short_id", lambda: secrets.token_hex(3), use_cache=True, replace=True)
    OmegaConf.register_new_resolver("if_set", lambda value, then, other: other if value is None else then, replace=True)
    OmegaConf.register_new_resolver("project", lambda: str(project_root()), replace=True)


def read_environment(name: str, *default: object) -> object:
    """The resolver behind `${oc.env:NAME}` and `${oc.env:NAME,default}`."""
    if not _READABLE.fullmatch(name):
        raise ConfigError(
            f"the environment variable {name} cannot be read in a config, which is printed and tracked; "
            f"name it MLXLAB_{name}"
        )
    value = os.environ.get(name)
    if value is None:
        if not default:
            raise ConfigError(f"the environment variable {name} is not set")
        return None if default[0] is None else str(default[0])
    if has_credentials(value):
        raise ConfigError(f"the environment variable {name} holds a URL with credentials; a config is tracked")
    return value


def resolve(config: DictConfig | ListConfig) -> tuple[Any, list[ConfigIssue]]:
    """(values, issues). A missing value stays `???`, an interpolation with an error becomes `UNRESOLVED`."""
    issues: list[ConfigIssue] = []

    def values_of(node: DictConfig | ListConfig, path: str) -> object:
        if isinstance(node, ListConfig):
            return [resolved(node, index, join_key(path, index)) for index in range(len(node))]
        return {key: resolved(node, key, join_key(path, key)) for key in node}

    def resolved(parent: DictConfig | ListConfig, key: Any, path: str) -> object:
        is_interpolation = OmegaConf.is_interpolation(parent, key)
        if OmegaConf.is_missing(parent, key) and not is_interpolation:
            return MISSING
        try:
            value = parent[key]
            if is_interpolation and isinstance(value, DictConfig | ListConfig):
                return OmegaConf.to_container(value, resolve=True)
        except (OmegaConfBaseException, RecursionError) as error:
            issues.append(ConfigIssue(path, _explain(error, config)))
            return UNRESOLVED
        return values_of(value, path) if isinstance(value, DictConfig | ListConfig) else value

    return values_of(config, ""), issues


def _explain(error: Exception, config: Container) -> str:
    first = one_line(str(error).partition("\n    full_key")[0])
    if "Recursive interpolation" in first or isinstance(error, RecursionError):
        return "an interpolation in a circle"
    if isinstance(error, InterpolationKeyError):
        name = first.split("'")[1] if "'" in first else first
        tree = OmegaConf.to_container(config, resolve=False)
        keys = [key for key, value in walk(tree) if not isinstance(value, dict)]
        return f"${{{name}}}: there is no such key" + did_you_mean(nearest(name, keys))
    if isinstance(error, InterpolationToMissingValueError):
        return f"refers to a value that is missing ({first.rpartition(': ')[2]})"
    if isinstance(error, UnsupportedInterpolationType):
        return f"{first}; there are oc.env, oc.decode, oc.select, now, if_set, short_id, project"
    if "while resolving interpolation: " in first:
        return first.partition("while resolving interpolation: ")[2]
    return f"an interpolation that cannot be read: {first}"
