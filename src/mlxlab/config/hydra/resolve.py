"""Converts a Hydra config to plain Python values; every interpolation is resolved and every error collected."""

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

from mlxlab.config.findings import ConfigIssue, one_line
from mlxlab.config.key_path import join_key, split_key
from mlxlab.config.paths import project_root
from mlxlab.config.schema.types import MISSING, Unresolved
from mlxlab.config.suggest import suggestion
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


def plain(config: DictConfig | ListConfig) -> tuple[Any, list[ConfigIssue]]:
    """(values, findings). A missing value stays `???`, an unresolved one becomes `Unresolved`."""
    findings: list[ConfigIssue] = []
    names = [path for path, _ in _leaves(OmegaConf.to_container(config, resolve=False))]
    return _plain(config, "", names, findings), findings


def raw_at(config: Container, path: str) -> object:
    """The value at `path` as written, so that the value of an interpolation is never shown."""
    tree: Any = OmegaConf.to_container(config, resolve=False)
    for name in split_key(path):
        try:
            tree = tree[int(name)] if isinstance(tree, list) else tree[name]
        except (KeyError, IndexError, ValueError, TypeError):
            return None
    return tree


def _plain(node: DictConfig | ListConfig, path: str, names: list[str], findings: list[ConfigIssue]) -> Any:
    keys: list[Any] = list(range(len(node))) if isinstance(node, ListConfig) else list(node.keys())
    values = {key: _value(node, key, join_key(path, key), names, findings) for key in keys}
    return list(values.values()) if isinstance(node, ListConfig) else values


def _value(parent: DictConfig | ListConfig, key: Any, path: str, names: list[str], findings: list[ConfigIssue]) -> Any:
    if OmegaConf.is_missing(parent, key) and not OmegaConf.is_interpolation(parent, key):
        return MISSING
    try:
        value = parent[key]
        if OmegaConf.is_interpolation(parent, key) and isinstance(value, DictConfig | ListConfig):
            return OmegaConf.to_container(value, resolve=True)
    except (OmegaConfBaseException, RecursionError) as error:
        findings.append(ConfigIssue(path, _explain(error, names)))
        return Unresolved()
    if isinstance(value, DictConfig | ListConfig):
        return _plain(value, path, names, findings)
    return value


def _explain(error: Exception, names: list[str]) -> str:
    first = one_line(str(error).partition("\n    full_key")[0])
    if "Recursive interpolation" in first or isinstance(error, RecursionError):
        return "an interpolation in a circle"
    if isinstance(error, InterpolationKeyError):
        name = first.split("'")[1] if "'" in first else first
        return f"${{{name}}}: there is no such key" + _near(name, names)
    if isinstance(error, InterpolationToMissingValueError):
        return f"refers to a value that is missing ({first.rpartition(': ')[2]})"
    if isinstance(error, UnsupportedInterpolationType):
        return f"{first}; there are oc.env, oc.decode, oc.select, now, if_set, short_id, project"
    if "while resolving interpolation: " in first:
        return first.partition("while resolving interpolation: ")[2]
    return f"an interpolation that cannot be read: {first}"


def _near(name: str, names: list[str]) -> str:
    near = suggestion(name, names)
    return near if "did you mean" in near else ""


def _leaves(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(tree, dict):
        return [leaf for key, value in tree.items() for leaf in _leaves(value, join_key(path, key))]
    return [(path, tree)]
