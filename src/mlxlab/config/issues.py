"""Issues of a config, one line each, and the dotted keys that they name: `data.batch_size`, `tags['a.b']`."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mlxlab.redact import redact, unknown_key

KeyPath = tuple[str, ...]
MISSING = "???"  # OmegaConf's mark of a mandatory value
UNRESOLVED = object()  # an interpolation that could not be resolved; its issue is already reported

_MAX_LINES = 10
_SEGMENT = re.compile(r"\['((?:[^'\\]|\\.)*)'\]|\.?([^.\[\]]+)")
_UNQUOTED = re.compile(r"[^.\[\]'\\]+")


class ConfigIssue(NamedTuple):
    """An error at the dotted key `path`; `message` says what was expected and what it is."""

    path: str
    message: str


def format_issues(issues: Iterable[ConfigIssue]) -> str:
    """At most ten lines, each issue once, then how many more there are. Credentials in URLs are removed."""
    lines = list(dict.fromkeys(one_line(redact(_line(*issue))) for issue in issues))
    if len(lines) > _MAX_LINES:
        lines[_MAX_LINES:] = [f"and {len(lines) - _MAX_LINES} more"]
    return "\n".join(lines)


def _line(label: str, message: str) -> str:
    return (
        unknown_key(label, message) if message.startswith("unknown key") else f"{label}: {message}"
    )


def one_line(text: str, max_length: int = 500) -> str:
    """Text without line breaks and control characters, truncated to `max_length`."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= max_length else flat[: max_length - 3] + "..."


def shown(value: object) -> str:
    """A value as one types it, truncated to 60 characters."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return one_line(repr(value) if isinstance(value, list | dict) else str(value), 60)


def walk(tree: object, path: str = "", *, lists: bool = True) -> Iterator[tuple[str, object]]:
    """(dotted key, value) of the tree itself and of everything in it; without `lists` not of the items of lists."""
    yield path, tree
    entries = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list) and lists
        else ()
    )
    for key, value in entries:
        yield from walk(value, join_key(path, key), lists=lists)


def value_at(tree: object, path: str) -> object:
    """The value at a dotted key of a tree, or None."""
    for name in split_key(path):
        if isinstance(tree, list):
            tree = {str(index): item for index, item in enumerate(tree)}
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def join_key(path: str, key: object) -> str:
    """`path` with one more key, quoted if it holds a dot or a bracket."""
    name = str(key)
    if _UNQUOTED.fullmatch(name):
        return f"{path}.{name}" if path else name
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"{path}['{quoted}']"


def split_key(text: str) -> KeyPath:
    """The keys that `join_key` joined."""
    return tuple(name or re.sub(r"\\(.)", r"\1", quoted) for quoted, name in _SEGMENT.findall(text))


def override_name(override: str) -> str:
    """The key or group that an override sets."""
    return override.lstrip("+~").split("=", 1)[0].split("@")[0]
