"""Reads the resolved config that a run folder holds. Anyone may have written it, so nothing of it is believed.

Unlike the user's own config folder it is plain data: no interpolations are resolved, no defaults are filled in.
"""

from pathlib import Path
from typing import Any

import yaml

from mlxlab.config.allowlist import find_disallowed
from mlxlab.config.findings import ConfigIssue, one_line
from mlxlab.config.hydra.yaml_limits import MAX_BYTES, scan_yaml
from mlxlab.config.schema import cross_checks
from mlxlab.config.schema.root import TARGET
from mlxlab.config.schema.validate import Validator
from mlxlab.errors import ConfigError, DataError, NotAllowedError
from mlxlab.files.untrusted import read_text

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_stored_config(path: Path) -> dict[str, Any]:
    """The config in a YAML file of a run folder, valid in every key.

    Raises:
        InputNotFoundError: there is no such file.
        NotAllowedError: a `_target_` in it may not be built.
        DataError: it is too large, nested too deep, not YAML, or not a config of this version.
    """
    try:
        text = scan_yaml(path, read_text(path, max_bytes=MAX_BYTES)).text
        tree = yaml.load(text, Loader=_LOADER)
    except ConfigError as error:
        raise DataError(str(error)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid YAML ({one_line(str(error), 100)})") from None
    return check_stored_config(tree, str(path))


def check_stored_config(config: object, name: str) -> dict[str, Any]:
    """A decoded config, valid in every key; `name` is where it was read.

    Raises:
        NotAllowedError: a `_target_` in it may not be built.
        DataError: it is not a config of this version.
    """
    if not isinstance(config, dict):
        raise DataError(f"{name}: expected a mapping of keys to values")
    if disallowed := find_disallowed(config):
        raise NotAllowedError(_message(name, disallowed))
    issues = list(Validator().node(config, TARGET, "")) or list(cross_checks.broken(config))
    if issues:
        raise DataError(_message(name, issues))
    return config


def _message(name: str, issues: list[ConfigIssue]) -> str:
    more = f" (and {len(issues) - 1} more)" if len(issues) > 1 else ""
    return one_line(f"{name}: {issues[0].path}: {issues[0].message}{more}")
