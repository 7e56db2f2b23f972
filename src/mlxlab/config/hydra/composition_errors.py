"""Explains why a composition failed. Hydra stops at the first error; this finds the others too.

Overrides that name no option are dropped, the others are forced (`++key=value`), and the result is checked: an
unknown key is then reported together with all other errors.
"""

import re
from pathlib import Path

from hydra._internal.hydra import Hydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException

from mlxlab.config.findings import ConfigIssue, one_line
from mlxlab.config.hydra.overrides import ParsedOverride
from mlxlab.config.hydra.yaml_limits import read_yaml
from mlxlab.config.paths import display_path
from mlxlab.config.suggest import suggestion
from mlxlab.errors import ConfigError


def forced(hydra: Hydra, typed: list[ParsedOverride]) -> tuple[list[str], list[ConfigIssue]]:
    """(overrides that compose even with unknown keys, issues with groups and options)."""
    texts, issues = [], []
    for override in typed:
        parsed = override.parsed
        if message := _option_error(hydra, parsed):
            issues.append(ConfigIssue(one_line(override.text, 120), message))
        elif _is_group(hydra, parsed) or parsed.is_delete() or parsed.is_hydra_override():
            texts.append(override.text)
        else:
            texts.append("++" + override.text.lstrip("+"))
    return texts, issues


def issue(hydra: Hydra, error: BaseException, override: ParsedOverride | None) -> ConfigIssue:
    """An exception as an issue, labelled with the override or file that it concerns."""
    if isinstance(error, ConfigError):  # of the YAML reader: it names file and line
        location, _, message = str(error).partition(": ")
        return ConfigIssue(location, message)
    message = describe_error(hydra, error)
    if override is None and (blamed := re.match(r"In '([^']+)': (.*)", message)):
        file = next((f for f in _candidates(hydra, blamed[1]) if f.is_file()), None)
        return ConfigIssue(_choosing(hydra, error) or (display_path(file) if file else blamed[1]), blamed[2])
    return ConfigIssue(one_line(override.text, 120) if override else "config", message)


def _candidates(hydra: Hydra, config: str) -> list[Path]:
    sources = _repository(hydra).get_sources()
    return [Path(source.path) / f"{config}.yaml" for source in sources if source.scheme() == "file"]


def _choosing(hydra: Hydra, error: BaseException) -> str | None:
    """`file:line` of the defaults entry that names a missing option; Hydra names the primary config instead."""
    group, _, option = str(getattr(error, "missing_cfg_file", None) or "").rpartition("/")
    for source in _repository(hydra).get_sources() if option else ():
        for file in sorted(Path(source.path).rglob("*.yaml")) if source.scheme() == "file" else ():
            for key, line in _entries(file):
                if key.split("@")[0].endswith((f" /{group}", f".{group}", f".{group.split('/')[-1]}")):
                    text = read_yaml(file).text.splitlines()[line - 1]
                    if re.search(rf":\s*{re.escape(option)}\s*(#.*)?$", text):
                        return f"{display_path(file)}:{line}"
    return None


def _entries(file: Path) -> list[tuple[str, int]]:
    try:
        return [
            item for item in read_yaml(file).lines.items() if item[0].startswith("defaults.") and item[0].count(".") > 1
        ]
    except ConfigError:
        return []


def describe_error(hydra: Hydra, error: BaseException) -> str:
    """An exception of Hydra or OmegaConf in one line, without the advice that follows it."""
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) and error.__cause__ else None
    first, _, rest = str(error).strip().partition("\n")
    first = one_line(f"{first} {rest.partition(chr(10))[0]}" if first.endswith(":") else first)
    if cause is not None and (first in ("", "None") or first.startswith("Error merging override")):
        first = one_line(str(cause).partition("\n")[0])
    missing = getattr(error, "missing_cfg_file", None)
    if isinstance(missing, str):
        group, _, option = missing.rpartition("/")
        return f"{first}{_near_option(hydra, group, option)}"
    return first or type(error).__name__


def culprit(typed: list[ParsedOverride], error: BaseException) -> ParsedOverride | None:
    """The override that an exception names, if any."""
    message = f"{error} {error.__cause__ or ''}"
    named = [o for o in typed if o.text in message or f"'{o.parsed.key_or_group}'" in message]
    return max(named, key=lambda override: len(override.parsed.key_or_group), default=None)


def _is_group(hydra: Hydra, override: Override) -> bool:
    return _repository(hydra).group_exists(override.key_or_group)


def _option_error(hydra: Hydra, override: Override) -> str | None:
    key = override.key_or_group
    if override.is_delete():
        return None
    if not _is_group(hydra, override):
        if "/" not in key:
            return None
        return f"there is no group {key}" + suggestion(key, groups(hydra))
    value = override.value()
    for option in value if isinstance(value, list) else [value]:
        if not isinstance(option, str):
            return f"expected the name of an option{_options(hydra, key)}"
        if not _repository(hydra).config_exists(f"{key}/{option}"):
            return f"{key} has no option {option}" + _near_option(hydra, key, option)
    return None


def _near_option(hydra: Hydra, group: str, option: str) -> str:
    for source in _repository(hydra).get_sources():
        file = Path(source.path) / group / f"{option}.yml"
        if source.scheme() == "file" and file.is_file():
            return f"; {file.name} is not read: rename it to {option}.yaml"
    return suggestion(option, _names(hydra, group))


def _options(hydra: Hydra, group: str) -> str:
    return suggestion("", _names(hydra, group))


def _names(hydra: Hydra, group: str) -> list[str]:
    options = hydra.config_loader.get_group_options(group, ObjectType.CONFIG)
    return [option for option in options if not option.startswith("_")]


def groups(hydra: Hydra) -> list[str]:
    """Every group of conf/, `trainer/loss` and the like."""
    return [name for name in hydra.list_all_config_groups() if not name.startswith("hydra")]


def _repository(hydra: Hydra):  # type: ignore[no-untyped-def]
    return hydra.config_loader.repository  # type: ignore[attr-defined]
