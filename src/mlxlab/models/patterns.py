"""Patterns of paths in a model: `*.attention.query`, `layers.0.*`, `embedding`, `re:backbone\\.layers\\.[01]\\..*`."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from mlxlab.config.suggest import did_you_mean, nearest
from mlxlab.errors import ConfigError

REGULAR_EXPRESSION = "re:"


def select(patterns: Sequence[str], paths: Iterable[str], key: str) -> list[str]:
    """The paths, in their order, that a pattern matches; those inside of a module whose path it matches too.

    A glob matches a whole path or the last parts of it, a regular expression a whole path.

    Raises:
        ConfigError: a pattern matches nothing, or is not a regular expression; `key` is where it is configured.
    """
    paths, matched = list(paths), set[str]()
    modules = {path: _ancestors(path) for path in paths}
    for pattern in patterns:
        own = {path for path, names in modules.items() if any(matches(pattern, name, key) for name in names)}
        if not own:
            raise ConfigError(f"{key}: {pattern} matches nothing" + did_you_mean(_nearest(pattern, modules)))
        matched |= own
    return [path for path in paths if path in matched]


def matches(pattern: str, path: str, key: str) -> bool:
    """Whether one pattern matches one path; raises ConfigError for a malformed regular expression."""
    if pattern.startswith(REGULAR_EXPRESSION):
        try:
            return re.fullmatch(pattern.removeprefix(REGULAR_EXPRESSION), path) is not None
        except re.error as error:
            raise ConfigError(f"{key}: {pattern} is not a regular expression: {error}") from None
    parts = path.split(".")
    return any(fnmatchcase(".".join(parts[start:]), pattern) for start in range(len(parts)))


def _ancestors(path: str) -> list[str]:
    """The path of a parameter or layer, and those of the modules that it lies in."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _nearest(pattern: str, modules: dict[str, list[str]]) -> str | None:
    """The path closest to a pattern, or the end of one with as many parts as the pattern."""
    count = pattern.count(".") + 1
    names = {name for ancestors in modules.values() for name in ancestors}
    ends = {".".join(name.split(".")[-count:]) for name in names}
    return nearest(pattern, {end for end in ends if not end.isdecimal()})
