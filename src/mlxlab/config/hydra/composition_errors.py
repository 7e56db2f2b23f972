"""Explains why a composition failed, and which override or line of a file is to blame.

Hydra stops at the first error. To find all, overrides without an option are dropped, the others forced (`++key=value`).
"""

import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from hydra._internal.config_repository import ConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig

from mlxlab.config.hydra.overrides import parse
from mlxlab.config.hydra.yaml_limits import YamlFile, read_yaml
from mlxlab.config.issues import ConfigIssue, format_key, one_line, split_key
from mlxlab.errors import ConfigError, NotAllowedError
from mlxlab.nearest import suggestion
from mlxlab.program import display_path

_ENV_COPY = "hydra.job.env_copy"


def forced(hydra: Hydra, typed: dict[str, Override]) -> tuple[dict[str, str], list[ConfigIssue]]:
    """(override as typed -> one that composes also with an unknown key, issues with groups and options)."""
    texts, issues = {}, []
    for text, override in typed.items():
        is_group = _repository(hydra).group_exists(override.key_or_group)
        if message := _option_error(hydra, override):
            issues.append(ConfigIssue(one_line(text, 120), message))
        elif (
            is_group
            or override.is_delete()
            or (override.is_hydra_override() and not _is_of_sweeper(override))
        ):
            texts[text] = text
        else:
            texts[text] = "++" + text.lstrip("+")
    refused = {
        override.key_or_group.replace("/", ".")
        for text, override in typed.items()
        if text not in texts
    }
    return {
        text: each
        for text, each in texts.items()
        if not _is_within(typed[text].key_or_group, refused)
    }, issues


def _is_within(key: str, groups: set[str]) -> bool:
    """Whether a key belongs to one of the groups: what is wrong with it depends on their options."""
    return any(key == group or key.startswith(f"{group}.") for group in groups)


def _is_of_sweeper(override: Override) -> bool:
    return override.key_or_group.startswith(
        "hydra.sweeper."
    )  # whose unknown keys `sweep_jobs` reports


def compose_valid(
    hydra: Hydra, name: str, typed: list[str]
) -> tuple[DictConfig | None, list[str], list[ConfigIssue]]:
    """(config, overrides in it, issues): overrides that fail are dropped one by one; None if a file is at fault."""
    overrides = parse(typed, multirun=True)[0]
    texts, issues = forced(hydra, overrides)
    failed: dict[str, int] = {}  # overrides of Hydra's own keys -> position of their issue
    while True:
        try:
            config = hydra.compose_config(name, list(texts.values()), RunMode.RUN)
            for text, position in failed.items():
                if message := _hydra_key_error(config, overrides[text].key_or_group):
                    issues[position] = ConfigIssue(issues[position].path, message)
            return config, list(texts.values()), issues
        except NotAllowedError:
            raise
        except Exception as error:
            named = [text for text in texts if _is_named(text, overrides[text].key_or_group, error)]
            blamed = max(named, key=lambda text: len(overrides[text].key_or_group), default=None)
            if type(error) is KeyError:
                label = blamed or locate(
                    hydra, name, tuple(typed), tuple(texts.values()), _ENV_COPY
                )
                issues.append(
                    ConfigIssue(label, f"the environment variable {error.args[0]} is not set")
                )
            else:
                issues.append(_issue(hydra, error, blamed))
            if blamed is None:
                return None, [], issues
            if overrides[blamed].is_hydra_override():
                failed[blamed] = len(issues) - 1
            del texts[blamed]


def _hydra_key_error(config: DictConfig, key: str) -> str | None:
    """What is wrong with the name of one of Hydra's keys, in a config that lacks it; None if nothing is."""
    names, node = key.split("."), config
    for depth, name in enumerate(names):
        keys = [str(each) for each in node]
        if name not in keys:
            return "unknown key" + suggestion(name, keys, f"{'.'.join(names[:depth])}.")
        child = node._get_node(name)
        if not isinstance(child, DictConfig):
            return None
        node = child
    which = "one of its keys" if len(node) > 1 else "its key"
    return f"expected {which}: {', '.join(f'{key}.{name!s}' for name in node)}"


def _is_named(text: str, key: str, error: Exception) -> bool:
    """Whether an error of Hydra is about the override `text` of `key`."""
    if (
        type(error) is KeyError
    ):  # of os.environ: Hydra reads the variables whether they are set or not
        return key == _ENV_COPY
    message = f"{error} {error.__cause__ or ''}"
    return text in message or f"'{key}'" in message


def locate(
    hydra: Hydra, name: str, typed: tuple[str, ...], composed: tuple[str, ...], path: str
) -> str:
    """The origin of a key of one job: `trainer.epochs=x`, or `conf/trainer/simple.yaml:12: trainer.epochs`, or the key.

    A key inside of an override follows it too: `data.mixture={a: -1}: data.mixture.a`.
    `composed` are those of the overrides as `typed` that could be composed.
    """
    names = split_key(path)
    for text, override in reversed(parse(list(typed), multirun=True)[0].items()):
        key = tuple(re.split("[./]", override.key_or_group))
        is_group = (
            _repository(hydra).group_exists(override.key_or_group) and not override.is_delete()
        )
        if names[: len(key)] == key and not is_group:
            return one_line(text, 120) if names == key else f"{one_line(text, 120)}: {path}"
    for depth in range(len(names), 0, -1):
        ancestor = format_key(names[:depth])
        for package, file, content in reversed(_merged_files(hydra, name, composed)):
            inside = ancestor.removeprefix(f"{package}." if package else "")
            if (not package or inside != ancestor) and inside in content.lines:
                return f"{display_path(file)}:{content.lines[inside]}: {path}"
    return path


@lru_cache(maxsize=1)  # for all errors of one job
def _merged_files(
    hydra: Hydra, name: str, overrides: tuple[str, ...]
) -> list[tuple[str, Path, YamlFile]]:
    """(package, file, content) in the order in which they are merged."""
    try:
        defaults = hydra.config_loader.compute_defaults_list(
            name, list(overrides), RunMode.RUN
        ).defaults
    except Exception:
        return []  # a failed label must not hide the error itself
    contents = []
    for default in defaults:
        config = default.config_path or ""
        files = [(folder / f"{config}.yaml").resolve() for folder in _folders(hydra)]
        file = next((file for file in files if file.is_file()), None)
        if file is not None and not config.startswith("hydra/"):
            with suppress(ConfigError):
                contents.append((default.package or "", file, read_yaml(file)))
    return contents


def _issue(hydra: Hydra, error: Exception, override: str | None) -> ConfigIssue:
    """An exception as an issue, labelled with the override or file that it concerns."""
    if isinstance(error, ConfigError):  # of the YAML reader: it names file and line
        location, _, message = str(error).partition(": ")
        return ConfigIssue(location, message)
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) else None
    first, _, more = str(error).strip().partition("\n")  # advice follows
    message = one_line(f"{first} {more.partition(chr(10))[0]}" if first.endswith(":") else first)
    if cause is not None and (
        message in ("", "None") or message.startswith("Error merging override")
    ):
        message = one_line(str(cause).partition("\n")[0])
    missing = error.missing_cfg_file if isinstance(error, MissingConfigException) else None
    group, _, option = (missing or "").rpartition("/")
    message = (
        message + _near_option(hydra, group, option) if missing else message or type(error).__name__
    )
    if override is None and (blamed := re.match(r"In '([^']+)': (.*)", message)):
        files = (folder / f"{blamed[1]}.yaml" for folder in _folders(hydra))
        file = next((display_path(file) for file in files if file.is_file()), blamed[1])
        return ConfigIssue(
            (_defaults_entry(hydra, group, option) if option else None) or file, blamed[2]
        )
    return ConfigIssue(one_line(override, 120) if override else "config", message)


def _defaults_entry(hydra: Hydra, group: str, missing: str) -> str | None:
    """`file:line` of the defaults entry that names a missing option; Hydra names the primary config instead."""
    for file in (file for folder in _folders(hydra) for file in sorted(folder.rglob("*.yaml"))):
        with suppress(ConfigError):
            for name, option, line in read_yaml(file).defaults():
                name = name.partition("@")[0].removeprefix("override ").lstrip("/")
                if option == missing and name in (group, group.rpartition("/")[2]):
                    return f"{display_path(file)}:{line}"
    return None


def _option_error(hydra: Hydra, override: Override) -> str | None:
    key = override.key_or_group
    if override.is_delete():
        return None
    if not _repository(hydra).group_exists(key):
        if "/" not in key:
            return None
        groups = [name for name in hydra.list_all_config_groups() if not name.startswith("hydra")]
        return f"there is no group {key}" + suggestion(key, groups)
    value = override.value()
    for option in value if isinstance(value, list) else [value]:
        if not isinstance(option, str):
            return f"expected the name of an option{suggestion('', _options(hydra, key))}"
        if not _repository(hydra).config_exists(f"{key}/{option}"):
            return f"{key} has no option {option}" + _near_option(hydra, key, option)
    return None


def _near_option(hydra: Hydra, group: str, option: str) -> str:
    if any((folder / group / f"{option}.yml").is_file() for folder in _folders(hydra)):
        return f"; {option}.yml is not read: rename it to {option}.yaml"
    return suggestion(option, _options(hydra, group))


def _options(hydra: Hydra, group: str) -> list[str]:
    options = hydra.config_loader.get_group_options(group, ObjectType.CONFIG)
    return [option for option in options if not option.startswith("_")]


def _folders(hydra: Hydra) -> list[Path]:
    return [
        Path(source.path)
        for source in _repository(hydra).get_sources()
        if source.scheme() == "file"
    ]


def _repository(hydra: Hydra) -> ConfigRepository:
    files: ConfigRepository = hydra.config_loader.repository  # type: ignore[attr-defined]
    return files
