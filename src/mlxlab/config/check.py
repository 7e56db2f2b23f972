"""`check`: a config against the signatures of its targets, before anything is imported or created."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from mlxlab.config.allowlist import find_disallowed
from mlxlab.config.findings import ConfigIssue, LocateKey, format_issues
from mlxlab.config.hydra.resolve import plain, raw_at
from mlxlab.config.schema import cross_checks, root
from mlxlab.config.schema.types import shown
from mlxlab.config.schema.validate import Validator
from mlxlab.errors import ConfigError, NotAllowedError


def check(config: DictConfig, label: LocateKey | None = None) -> None:
    """Raises with every fault of a composed config (without its `hydra:` node), one line each, at most ten.

    Args:
        label: names the place of a dotted key; the key and its value if not given.

    Raises:
        NotAllowedError: a `_target_` that may not be built, wherever it stands.
        ConfigError: unknown, missing or impossible values.
    """
    label = label or _labelled(config)
    refuse_disallowed(config, label)
    faults = config_issues(config)
    if faults:
        raise ConfigError(format_issues(faults, label))


def refuse_disallowed(config: DictConfig, label: LocateKey) -> None:
    """Raises NotAllowedError if the config asks for something that may not be built."""
    raw = OmegaConf.to_container(config, resolve=False)
    found = find_disallowed(raw) or find_disallowed(plain(config)[0])
    if found:
        raise NotAllowedError(format_issues(found, label))


def config_issues(config: DictConfig) -> list[ConfigIssue]:
    """Everything that is wrong, in the order of the keys."""
    tree, faults = plain(config)
    examined = list(Validator(lambda path, value: _got(config, path, value)).node(tree, root.TARGET, ""))
    broken = [] if examined else list(cross_checks.broken(tree))
    return faults + examined + broken


def _got(config: DictConfig, path: str, value: Any) -> str:
    """The value as written: what an interpolation stands for may be a secret."""
    raw = raw_at(config, path)
    return str(raw) if isinstance(raw, str) and "${" in raw else shown(value)


def _labelled(config: DictConfig) -> LocateKey:
    def label(path: str) -> str:
        raw = raw_at(config, path)
        return path if raw is None or isinstance(raw, dict | list) else f"{path}={shown(raw)}"

    return label
