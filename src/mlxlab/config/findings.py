"""Findings: what is wrong in a configuration, gathered and told one line each."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

_MOST = 10


@dataclass(frozen=True)
class ConfigIssue:
    """A fault at the dotted key `path`; `message` says what was expected and what was got."""

    path: str
    message: str


LocateKey = Callable[
    [str], str
]  # where a key got its value: `trainer.epochs=x`, `conf/trainer/simple.yaml:3: trainer.epochs`


def format_issues(findings: Iterable[ConfigIssue], label: LocateKey = str) -> str:
    """At most ten lines, each finding once, then how many more there are."""
    lines = list(dict.fromkeys(f"{label(finding.path)}: {finding.message}" for finding in findings))
    more = [f"and {len(lines) - _MOST} more"] if len(lines) > _MOST else []
    return "\n".join(one_line(line) for line in lines[:_MOST] + more)


def one_line(text: str, most: int = 400) -> str:
    """Text without line breaks and control characters, cut to what a terminal can show."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= most else flat[: most - 3] + "..."
