"""Config issues: what is wrong in a configuration, collected and reported one line each."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mlxlab.redact import redact

_MAX_LINES = 10


@dataclass(frozen=True)
class ConfigIssue:
    """An error at the dotted key `path`; `message` says what was expected and what it is."""

    path: str
    message: str


# Where a key got its value: `trainer.epochs=x`, or `conf/trainer/simple.yaml:3: trainer.epochs`.
LocateKey = Callable[[str], str]


def format_issues(issues: Iterable[ConfigIssue], label: LocateKey = str) -> str:
    """At most ten lines, each issue once, then how many more there are. Credentials in URLs are removed."""
    lines = list(dict.fromkeys(redact(f"{label(issue.path)}: {issue.message}") for issue in issues))
    more = [f"and {len(lines) - _MAX_LINES} more"] if len(lines) > _MAX_LINES else []
    return "\n".join(one_line(line) for line in lines[:_MAX_LINES] + more)


def one_line(text: str, max_length: int = 400) -> str:
    """Text without line breaks and control characters, truncated to `max_length`."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= max_length else flat[: max_length - 3] + "..."
