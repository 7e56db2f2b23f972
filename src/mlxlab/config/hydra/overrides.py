"""What was typed: overrides, looked at one by one before they are composed."""

import re
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException

from mlxlab.config.findings import ConfigIssue, one_line
from mlxlab.errors import ConfigError

_MOST_LETTERS = 10_000
_MOST_DEPTH = 30


@dataclass(frozen=True)
class ParsedOverride:
    """One override: as typed, as Hydra reads it, and its dotted key."""

    text: str
    parsed: Override

    @property
    def key(self) -> str:
        return self.parsed.key_or_group.replace("/", ".")


def parse(texts: list[str], multirun: bool) -> tuple[list[ParsedOverride], list[ConfigIssue]]:
    """(sound overrides, findings). The path of a finding is the override as typed."""
    typed: list[ParsedOverride] = []
    findings: list[ConfigIssue] = []
    parser = OverridesParser.create()
    for text in texts:
        try:
            _small(text)
            [parsed] = parser.parse_overrides([text])
            if parsed.is_sweep_override() and not multirun:
                raise ConfigError("several values: put -m in front to run each of them, or [a,b] for a list")
            typed.append(ParsedOverride(text, parsed))
        except OverrideParseException as error:
            findings.append(ConfigIssue(one_line(text, 80), _said(text, error)))
        except (ConfigError, RecursionError, ValueError) as error:
            findings.append(ConfigIssue(one_line(text, 80), one_line(str(error)) or "cannot be read"))
    return typed, findings + _contradictions(typed)


def _small(text: str) -> None:
    if "\0" in text or not text.isprintable():
        raise ConfigError("a control character in an override")
    if len(text) > _MOST_LETTERS:
        raise ConfigError(f"{len(text):,} characters; an override may have {_MOST_LETTERS:,}")
    depth = deepest = 0
    for letter in text:
        depth += (letter in "[{(") - (letter in "]})")
        deepest = max(deepest, depth)
    if deepest > _MOST_DEPTH:
        raise ConfigError(f"nested more than {_MOST_DEPTH} deep")


def _said(text: str, error: OverrideParseException) -> str:
    if "=" not in text and not text.startswith("~"):
        return "expected key=value"
    if re.search(r"^\s|\s=|=\s", text):
        return "spaces beside the equals sign; write key=value"
    said = str(error.__cause__ or error).partition("\n")[0]
    return f"cannot be read ({one_line(said, 120)}); quote the value: key='\"...\"'"


def _contradictions(typed: list[ParsedOverride]) -> list[ConfigIssue]:
    """Two overrides of one key that differ: Hydra would take the last without a word."""
    seen: dict[tuple[str, str | None], ParsedOverride] = {}
    findings = []
    for one in typed:
        before = seen.setdefault((one.key, one.parsed.package), one)
        if before.text.lstrip("+") != one.text.lstrip("+"):
            findings.append(ConfigIssue(one.text, f"contradicts {before.text}; give one of them"))
    return findings


def cli_overrides() -> list[str]:
    """What the user typed for the job that is running; empty outside of one."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def group_choices() -> dict[str, str]:
    """Group -> option, of the job that is running; empty outside of one."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return {}
    chosen = HydraConfig.get().runtime.choices
    return {str(group): str(option) for group, option in chosen.items() if option and not group.startswith("hydra/")}
