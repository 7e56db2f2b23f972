"""Issues of a config, one line each."""

from collections.abc import Iterable
from typing import NamedTuple

from mlxlab.terminal.redact import issue_line, redact
from mlxlab.terminal.wording import one_line

MISSING = "???"  # OmegaConf's mark of a mandatory value
UNRESOLVED = object()  # an interpolation that could not be resolved; its issue is already reported

_MAX_LINES = 10


class ConfigIssue(NamedTuple):
    """An error at the dotted key `path`; `message` says what was expected and what it is."""

    path: str
    message: str


def format_issues(issues: Iterable[ConfigIssue]) -> str:
    """Lists each issue once, at most ten, then how many more there are. Credentials in URLs are removed."""
    lines = list(dict.fromkeys(one_line(redact(issue_line(*issue))) for issue in issues))
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"and {len(lines) - _MAX_LINES} more"]
    return "\n".join(lines)
