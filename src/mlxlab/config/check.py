"""`check`: a config against the signatures of its targets, before anything is imported or created."""

from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from mlxlab.config.allowlist import find_disallowed
from mlxlab.config.findings import ConfigIssue, LocateKey, format_issues
from mlxlab.config.hydra.resolve import plain, raw_at
from mlxlab.config.key_path import join_key
from mlxlab.config.schema import cross_checks, root
from mlxlab.config.schema.types import shown
from mlxlab.config.schema.validate import Validator
from mlxlab.errors import ConfigError, NotAllowedError
from mlxlab.redact import CREDENTIALS, has_credentials


def check(config: DictConfig, label: LocateKey | None = None) -> None:
    """Checks a composed config (without its `hydra:` node); reports all errors, one line each, at most ten.

    Args:
        label: where a dotted key got its value; the key and its value if not given.

    Raises:
        NotAllowedError: a `_target_` may not be built, or a URL holds credentials.
        ConfigError: unknown, missing or invalid values.
    """
    label = label or _label_by_value(config)
    refuse_disallowed(config, label)
    issues = config_issues(config)
    if issues:
        raise ConfigError(format_issues(issues, label))


def refuse_disallowed(config: DictConfig, label: LocateKey) -> None:
    """Raises NotAllowedError if the config has a target that may not be built, or a URL with credentials."""
    raw, resolved = OmegaConf.to_container(config, resolve=False), plain(config)[0]
    issues = find_disallowed(raw) or find_disallowed(resolved) or list(find_credentials(resolved))
    if issues:
        raise NotAllowedError(format_issues(issues, label))


def find_credentials(tree: object, path: str = "") -> Iterator[ConfigIssue]:
    """Every key or text that holds a URL with a password or token: a config is printed, stored and tracked."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if isinstance(key, str) and has_credentials(key):
                yield ConfigIssue(path, CREDENTIALS)
            yield from find_credentials(value, join_key(path, key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from find_credentials(value, join_key(path, number))
    elif isinstance(tree, str) and has_credentials(tree):
        yield ConfigIssue(path, CREDENTIALS)


def config_issues(config: DictConfig) -> list[ConfigIssue]:
    """All unknown, missing and invalid values, in the order of the keys."""
    tree, unresolved = plain(config)
    invalid = list(Validator(lambda path, value: _got(config, path, value)).node(tree, root.TARGET, ""))
    return unresolved + (invalid or list(cross_checks.broken(tree)))


def _got(config: DictConfig, path: str, value: Any) -> str:
    """The value as written: the value of an interpolation may be a secret."""
    raw = raw_at(config, path)
    return str(raw) if isinstance(raw, str) and "${" in raw else shown(value)


def _label_by_value(config: DictConfig) -> LocateKey:
    def label(path: str) -> str:
        raw = raw_at(config, path)
        return path if raw is None or isinstance(raw, dict | list) else f"{path}={shown(raw)}"

    return label
