"""Composes and checks configs with Hydra's Compose API: for the commands, the Python API and the jobs of a sweep.

Hydra stops at the first fault of what it refuses to compose; to find others, overrides without an option are left out,
the others forced (`++key=value`), so that our check names unknown keys.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from mlxlab.config.check import config_issues, register_resolvers
from mlxlab.config.hydra.job import explain, job_config, parse, set_number
from mlxlab.config.issues import ConfigIssue, format_issues
from mlxlab.config.paths import typed_folders
from mlxlab.errors import ConfigError, hides_interrupt
from mlxlab.schema.dotted_keys import override_name
from mlxlab.terminal.nearest import suggestion
from mlxlab.terminal.wording import one_line, shown

VERSION_BASE = "1.3"
PRIMARY = "train"
# An `override hydra/launcher` in the primary config would silently win over that of an experiment.
_DEFAULTS = {"launcher": "isolated", "sweeper": "grid"}
# The check of a sweep names unknown keys of its plugins.
_HYDRA_KEY = re.compile(r"hydra\.(?!sweeper\.|launcher\.)")


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
    config = None
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
        return OmegaConf.to_container(without_hydra(config), resolve=resolve)  # type: ignore[return-value]


def without_hydra(config: DictConfig) -> DictConfig:
    """The config of the experiment, without the `hydra` node."""
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def compose_valid(overrides: list[str], name: str) -> tuple[DictConfig | None, list[ConfigIssue]]:
    """What the open Hydra composes of the overrides that are valid, None if a file is at fault; and the issues."""
    typed, issues = parse(overrides, multirun=False)
    forced = _forced(typed, issues)
    try:
        return hydra.compose(name, list(forced.values()), return_hydra_config=True), issues
    except Exception as error:
        return None, [*issues, _issue(error, forced)]


def _forced(typed: dict[str, Override], issues: list[ConfigIssue]) -> dict[str, str]:
    """Override as typed -> one that composes also with an unknown key; faults in groups are added to `issues`."""
    loader = GlobalHydra.instance().config_loader()
    forced = {}
    refused = []
    for text, override in typed.items():
        group = override.key_or_group
        options = loader.get_group_options(group)
        fault = ""
        if options and not override.is_delete():
            fault = _option_fault(group, override.value(), options)
        elif "/" in group and not options:
            parent, _, name = group.rpartition("/")
            near = suggestion(name, loader.list_groups(parent), f"{parent}/")
            fault = f"there is no group {group}{near}"
        if fault:
            issues.append(ConfigIssue(one_line(text, 120), fault))
            refused.append(f"{group.replace('/', '.')}.")
        elif options or override.is_delete() or _HYDRA_KEY.match(group):
            forced[text] = text
        else:
            forced[text] = f"++{text.lstrip('+')}"
    # What is wrong with a key of a group depends on its option.
    dependent = [text for text in forced if typed[text].key_or_group.startswith(tuple(refused))]
    for text in dependent:
        del forced[text]
    return forced


def _option_fault(group: str, value: object, options: list[str]) -> str:
    """What is wrong with the option of a group; "" if nothing is."""
    for name in value if isinstance(value, list) else [value]:
        if name not in options:
            text = shown(name)
            return f"{group} has no option {text}{suggestion(text, options)}"
    return ""


def _issue(error: Exception, overrides: Iterable[str]) -> ConfigIssue:
    """An error of Hydra on one line, with the override, option or file that it is about."""
    if isinstance(error, ConfigError):  # It is of a file, and says where.
        location, _, message = str(error).partition(": ")
        return ConfigIssue(location, message)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        near = suggestion(option, error.options)
        return ConfigIssue(f"{group}={option}", f"{group} has no option {option}{near}")
    message = f"{error} {error.__cause__ or ''}"
    named = [text for text in overrides if _names(message, text)]
    return ConfigIssue(one_line(max(named, key=len, default="config"), 120), explain(error))


def _names(message: str, override: str) -> bool:
    return override in message or f"'{override_name(override)}'" in message
