"""Parses overrides one by one before they are composed."""

import re
from collections.abc import Iterable
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import OverrideParseException
from omegaconf import ListConfig, OmegaConf

from mlxlab.config.issues import ConfigIssue, one_line
from mlxlab.config.resume_overrides import override_name
from mlxlab.errors import ConfigError

_MAX_CHARACTERS = 10_000
_MAX_DEPTH = 30


def parse(texts: list[str], multirun: bool) -> tuple[dict[str, Override], list[ConfigIssue]]:
    """(valid overrides by their text, issues). The path of an issue is the override as typed."""
    typed: dict[str, Override] = {}
    issues: list[ConfigIssue] = []
    parser = OverridesParser.create()
    for text in texts:
        try:
            _check_limits(text)
            [override] = parser.parse_overrides([text])
            if override.is_sweep_override() and not multirun:
                raise ConfigError(_not_one_value(override))
            typed[text] = override
        except OverrideParseException as error:
            issues.append(ConfigIssue(one_line(text, 80), _parse_error(text, error)))
        except (ConfigError, RecursionError, ValueError) as error:
            issues.append(ConfigIssue(one_line(text, 80), one_line(str(error)) or "cannot be read"))
    first: dict[tuple[str, str | None], str] = {}
    for text, override in typed.items():  # Hydra would silently use the last of several values
        before = first.setdefault((override.key_or_group.replace("/", "."), override.package), text)
        if before.lstrip("+") != text.lstrip("+"):
            issues.append(ConfigIssue(text, f"contradicts {before}; give one of them"))
    return typed, issues


def _not_one_value(override: Override) -> str:
    if override.value_type == ValueType.INTERVAL_SWEEP:
        return "an interval: put -m hydra/sweeper=search in front to search it"
    return "several values: put -m in front to run each of them, or [a,b] for a list"


def _check_limits(text: str) -> None:
    if not text.isprintable():
        raise ConfigError("a control character in an override")
    if len(text) > _MAX_CHARACTERS:
        raise ConfigError(f"{len(text):,} characters; an override may have {_MAX_CHARACTERS:,}")
    if max(accumulate((c in "[{(") - (c in "]})") for c in text), default=0) > _MAX_DEPTH:
        raise ConfigError(f"nested more than {_MAX_DEPTH} deep")


def _parse_error(text: str, error: OverrideParseException) -> str:
    if "=" not in text and not text.startswith("~"):
        return "expected key=value"
    reason = str(error.__cause__ or error).partition("\n")[0]
    return f"cannot be read ({one_line(reason, 120)}); expected text in quotation marks: key='...'"


def typed_values(overrides: Iterable[str]) -> dict[str, str]:
    """Key -> value of each override that sets one, as text: without quotation marks and escapes.

    It is as typed where it is no text, or cannot be parsed.
    """
    setting = (text for text in overrides if "=" in text and not text.startswith("~"))
    return {override_name(text): _text_of(text) for text in setting}


def _text_of(override: str) -> str:
    value = override.partition("=")[2]
    if not set(value) & set("'\"\\"):
        return value
    with suppress(OverrideParseException, RecursionError):
        [parsed] = OverridesParser.create().parse_overrides([override])
        return _without_escapes(text) if isinstance(text := parsed.value(), str) else value
    return value


def _without_escapes(text: str) -> str:
    """With `${` in place of each escaped one, unless another begins an interpolation."""
    if any(len(backslashes) % 2 == 0 for backslashes in re.findall(r"(\\*)\$\{", text)):
        return text
    return re.sub(r"(\\*)\\\$\{", lambda start: start[1][: len(start[1]) // 2] + "${", text)


def as_typed(overrides: ListConfig) -> list[str]:
    """The texts of overrides; a `${hydra:job.num}` in them means nothing before a job runs."""
    return [str(text) for text in OmegaConf.to_container(overrides, resolve=False) or []]


def cli_overrides() -> list[str]:
    """The overrides of the running job; empty outside of a job."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def typed_run_dir() -> str:
    """The text of `hydra.run.dir=` on the command line of the running job; empty if there is none."""
    typed = HydraConfig.get().overrides.hydra if HydraConfig.initialized() else []
    values = (text.partition("=")[2] for text in typed if text.startswith("hydra.run.dir="))
    return next(values, "")


def config_folders() -> list[Path]:
    """The folders of config files of the running job, in the order of their precedence; empty outside of a job."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    return [Path(source.path) for source in sources if source.schema == "file"]


def group_choices() -> dict[str, str]:
    """Group -> option of the running job; empty outside of a job."""
    chosen = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    return {
        str(group): str(option)
        for group, option in chosen.items()
        if option and not group.startswith("hydra/")
    }
