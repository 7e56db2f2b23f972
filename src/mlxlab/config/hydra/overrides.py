"""Parses overrides one by one before they are composed."""

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from itertools import accumulate, takewhile
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import OverrideParseException
from omegaconf import ListConfig, OmegaConf

from mlxlab.config.issues import ConfigIssue, one_line
from mlxlab.config.resume_overrides import override_name
from mlxlab.config.suggest import did_you_mean, nearest
from mlxlab.errors import ConfigError
from mlxlab.program import path_override, quoted, text_value

_MAX_CHARACTERS = 10_000
_MAX_DEPTH = 30


def parse(texts: list[str], multirun: bool) -> tuple[dict[str, Override], list[ConfigIssue]]:
    """(valid overrides by their text, issues). The path of an issue is the override as typed."""
    typed: dict[str, Override] = {}
    issues: list[ConfigIssue] = []
    parser = OverridesParser.create()
    for position, text in enumerate(texts):
        if _is_in_open_list(texts, position):
            continue  # the issue of the list names it
        try:
            _check_limits(text)
            [override] = parser.parse_overrides([text])
            if override.is_sweep_override() and not multirun:
                raise ConfigError(_not_one_value(override))
            typed[text] = override
        except OverrideParseException as error:
            issues.append(ConfigIssue(one_line(text, 80), _parse_error(texts, position, error)))
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


def _parse_error(texts: list[str], position: int, error: OverrideParseException) -> str:
    text = texts[position]
    if "=" not in text and not text.startswith("~"):
        key, value = _with_following_words(texts, position)
        if (
            not key
            or "=" not in texts[position - 1]
            or ("." in text and not key.endswith("source"))
        ):
            return "expected key=value"
        return f"expected key=value; if it belongs to {key}, quote it: {_quoted(key, value)}"
    if re.search(r"^\s|\s=|=\s", text):
        return "spaces around the equals sign; write key=value"
    reason = str(error.__cause__ or error).partition("\n")[0]
    key, _, value = text.partition("=")
    if (path := os.path.expanduser(value)) != value:
        return f"a shell expands no ~ after =; write {quoted(path_override(key, path))}"
    if value.startswith("[") and not value.endswith("]"):
        _, value = _with_following_words(texts, position)
    is_list = re.fullmatch(r"\[[^\[\]{}]*\]", value) is not None
    if not is_list and (unknown := re.search(r"Unknown function '(\w+)'", reason)):
        known = OverridesParser.create().functions.functions
        if near := nearest(unknown[1], known):
            return f"unknown function {unknown[1]}{did_you_mean(near)}"
    example = (
        _quoted(key, value)
        if (is_list or value[:1].isalpha()) and len(value) < 120
        else "key='\"...\"'"
    )
    if is_list:
        return f"quote the list, and in it names with punctuation: {example}"
    return f"cannot be read ({one_line(reason, 120)}); quote the value: {example}"


def _is_in_open_list(texts: list[str], position: int) -> bool:
    """Whether this is a word of a list that a shell has split at its spaces."""
    starts = [start for start in range(position + 1) if "=" in texts[start]]
    value = texts[starts[-1]].partition("=")[2] if starts else ""
    is_word = bool(starts) and starts[-1] < position and not texts[position].startswith("~")
    before = "".join(texts[starts[-1] : position]) if is_word else ""
    return is_word and value.startswith("[") and "]" not in before


def _with_following_words(texts: list[str], position: int) -> tuple[str, str]:
    """The key at or before `position`, and its value with the words after it, as if it had been quoted; or two ""."""
    starts = [start for start in range(position + 1) if "=" in texts[start]]
    if not starts:
        return "", ""
    key, _, value = texts[starts[-1]].partition("=")
    words = takewhile(lambda text: "=" not in text, texts[starts[-1] + 1 :])
    return (key, " ".join([value, *words])) if value else ("", "")


def _quoted(key: str, value: str) -> str:
    """An override whose value is text or a list for Hydra, as an argument of a shell."""
    text = f"{key}={value}" if value.startswith(("[", "{")) and _is_valid(f"{key}={value}") else ""
    if not text and re.fullmatch(r"\[[^\[\]{}]*\]", value):
        items = [item.strip() for item in value[1:-1].split(",")]
        text = f"{key}=[{', '.join(item if _is_valid(f'key={item}') else _as_text(item) for item in items)}]"
    return quoted(text or f"{key}={_as_text(value)}")


_as_text = partial(text_value, interpolates=True)


def _is_valid(override: str) -> bool:
    try:
        OverridesParser.create().parse_overrides([override])
    except OverrideParseException:
        return False
    return True


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
