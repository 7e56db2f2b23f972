"""Resolves a config and checks it against the signatures of its targets, before anything is imported or created."""

import os
import re
import secrets
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, errors

from mlxlab.config.instantiate import find_disallowed
from mlxlab.config.issues import (
    MISSING,
    UNRESOLVED,
    ConfigIssue,
    LocateKey,
    format_issues,
    join_key,
    one_line,
    shown,
    value_at,
    walk,
)
from mlxlab.config.paths import project_root
from mlxlab.config.schema.validate import Validator
from mlxlab.errors import ConfigError, DataError, NotAllowedError
from mlxlab.files.untrusted import read_text
from mlxlab.nearest import did_you_mean, nearest
from mlxlab.redact import has_credentials, why_refused

# A config is printed, stored and tracked, so only variables that never hold a secret can be read in one.
_READABLE = re.compile(r"MLXLAB_\w+|HOME|USER|TMPDIR|HOSTNAME|SCRATCH|SLURM_(JOB|ARRAY)_\w+")


def check(config: DictConfig | dict[str, Any]) -> None:
    """Raises ConfigError with the `config_issues` of a config, one line each, at most ten."""
    if issues := config_issues(config):
        raise ConfigError(format_issues(issues))


def config_issues(
    config: DictConfig | dict[str, Any], label: LocateKey | None = None
) -> list[ConfigIssue]:
    """All unknown, missing and invalid values of a config without its `hydra:` node, in the order of the keys.

    Args:
        config: composed, or a resolved `dict`, in which `${x}` is text.
        label: the path of an issue from its dotted key; None adds the value, `seed=-1`.

    Raises:
        NotAllowedError: a `_target_` may not be built, or a URL holds credentials.
    """
    raw = config if isinstance(config, dict) else OmegaConf.to_container(config, resolve=False)

    def key_and_value(path: str) -> str:
        value = value_at(raw, path)
        return path if value is None or isinstance(value, dict | list) else f"{path}={shown(value)}"

    def got(path: str, value: object) -> str:
        """The value as written: the value of an interpolation may be a secret."""
        written = value_at(raw, path)
        return written if isinstance(written, str) and "${" in written else shown(value)

    label = label or key_and_value
    tree, unresolved = (config, []) if isinstance(config, dict) else resolve(config)
    # A config is printed, stored and tracked. Keys are looked at too: a mapping holds them as its items.
    texts = (
        (path, text)
        for path, value in walk(tree)
        for text in (value if isinstance(value, dict) else [value])
    )
    leaked = [
        ConfigIssue(at, why_refused(text))
        for at, text in texts
        if isinstance(text, str) and has_credentials(text)
    ]
    if refused := find_disallowed(raw) or find_disallowed(tree) or leaked:
        raise NotAllowedError(format_issues(refused, label))
    issues = unresolved + Validator(got).config(tree)
    return [_of_missing(issue.path, label(issue.path), issue.message) for issue in issues]


def _of_missing(path: str, label: str, message: str) -> ConfigIssue:
    """An issue with its label; a mandatory value of a shipped config is asked for instead of its line in the file."""
    if not (
        message.startswith("missing; ") and re.match(r"(.*/)?conf/(data|model|trainer)/", label)
    ):
        return ConfigIssue(label, message)
    advice = "name your file, for example data.source=my.csv"
    return ConfigIssue(
        f"{path} is missing",
        advice if path == "data.source" else f"set it on the command line, {path}=...",
    )


def read_stored_config(path: Path) -> dict[str, Any]:
    """The config in a YAML file of a run folder. Anyone may have written it: it is checked, and nothing is resolved.

    Raises:
        InputNotFoundError: there is no such file.
        NotAllowedError: a `_target_` in it may not be built.
        DataError: it is too large, nested too deep, not YAML, or not a config of this version.
    """
    from mlxlab.config.hydra.yaml_limits import MAX_BYTES, parse_yaml

    try:
        return check_stored_config(
            parse_yaml(path, read_text(path, max_bytes=MAX_BYTES)).values, str(path)
        )
    except ConfigError as error:
        raise DataError(str(error)) from None


def check_stored_config(config: object, name: str) -> dict[str, Any]:
    """A decoded config that was read from `name`, valid in every key; raises NotAllowedError or DataError."""
    if not isinstance(config, dict):
        raise DataError(f"{name}: expected a mapping of keys to values")
    disallowed = find_disallowed(config)
    if issues := disallowed or Validator().config(config):
        more = f" (and {len(issues) - 1} more)" if len(issues) > 1 else ""
        message = one_line(f"{name}: {issues[0].path}: {issues[0].message}{more}")
        raise NotAllowedError(message) if disallowed else DataError(message)
    return config


def check_stored_model(node: object, config: dict[str, Any], name: str) -> dict[str, Any]:
    """A decoded `model` node that was read from `name`, valid in its config; raises as `check_stored_config`."""
    model: dict[str, Any] = check_stored_config({**config, "model": node}, name)["model"]
    return model


def register_resolvers() -> None:
    """Makes `${name:...}` known, in addition to the resolvers of OmegaConf and Hydra."""
    OmegaConf.register_new_resolver("oc.env", read_environment, replace=True)
    OmegaConf.register_new_resolver(
        "short_id", lambda: secrets.token_hex(3), use_cache=True, replace=True
    )
    OmegaConf.register_new_resolver(
        "if_set", lambda value, then, other: other if value is None else then, replace=True
    )
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
        raise ConfigError(
            f"the environment variable {name} holds a URL with credentials; a config is tracked"
        )
    return value


def resolve(config: DictConfig) -> tuple[dict[str, object], list[ConfigIssue]]:
    """(values, issues). A missing value stays `???`, an interpolation with an error becomes `UNRESOLVED`."""
    issues: list[ConfigIssue] = []

    def resolved(parent: DictConfig | ListConfig, key: Any, path: str) -> object:
        is_interpolation = OmegaConf.is_interpolation(parent, key)
        if OmegaConf.is_missing(parent, key) and not is_interpolation:
            return MISSING
        try:
            value = parent[key]
            if is_interpolation and isinstance(value, DictConfig | ListConfig):
                return OmegaConf.to_container(value, resolve=True)
        except (errors.OmegaConfBaseException, RecursionError) as error:
            issues.append(ConfigIssue(path, _explain(error, config)))
            return UNRESOLVED
        if isinstance(value, ListConfig):
            return [resolved(value, index, join_key(path, index)) for index in range(len(value))]
        if isinstance(value, DictConfig):
            return {name: resolved(value, name, join_key(path, name)) for name in value}
        return value

    return {str(key): resolved(config, key, join_key("", key)) for key in config}, issues


def _explain(error: Exception, config: DictConfig) -> str:
    first = one_line(str(error).partition("\n    full_key")[0])
    if "Recursive interpolation" in first or isinstance(error, RecursionError):
        return "an interpolation in a circle"
    if isinstance(error, errors.InterpolationKeyError):
        name = first.split("'")[1] if "'" in first else first
        tree = OmegaConf.to_container(config, resolve=False)
        keys = [key for key, value in walk(tree) if not isinstance(value, dict)]
        return f"${{{name}}}: there is no such key" + did_you_mean(nearest(name, keys))
    if isinstance(error, errors.InterpolationToMissingValueError):
        return f"refers to a value that is missing ({first.rpartition(': ')[2]})"
    if isinstance(error, errors.UnsupportedInterpolationType):
        return f"{first}; there are oc.env, oc.decode, oc.select, now, if_set, short_id, project"
    if "while resolving interpolation: " in first:
        return first.partition("while resolving interpolation: ")[2]
    return f"an interpolation that cannot be read: {first}"
