"""Explains what Hydra refuses to compose. Hydra stops at the first fault; this finds others.

Overrides without an option are left out, the others forced (`++key=value`), so that our check names unknown keys.
"""

import re
from collections.abc import Iterable

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from omegaconf import DictConfig

from mlxlab.config.hydra.overrides import parse
from mlxlab.config.issues import ConfigIssue
from mlxlab.errors import ConfigError, UserError
from mlxlab.schema.dotted_keys import override_name
from mlxlab.terminal.nearest import suggestion
from mlxlab.terminal.wording import one_line, shown

# The check of a sweep names unknown keys of its plugins.
_HYDRA_KEY = re.compile(r"hydra\.(?!sweeper\.|launcher\.)")


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


def explain(error: Exception) -> str:
    """The first line of an error, or of what caused it where Hydra says nothing of its own."""
    text = str(error).strip()
    if isinstance(error, UserError):
        return text
    if not text or text.startswith("Error merging override"):
        text = str(error.__cause__ or type(error).__name__).strip()
    return one_line(text.replace(":\n", ": ").partition("\n")[0])  # Advice follows.
