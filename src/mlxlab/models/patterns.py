"""Patterns of paths in a model: `*.attention.query`, `layers.[01].*`, `embedding`."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import combinations

from mlxlab.errors import ConfigError

MAX_EXAMPLES = 3  # existing paths in a message


def select(patterns: Sequence[str], paths: Iterable[str], key: str) -> list[str]:
    """The paths, in their order, that a pattern matches; those inside of a module whose path it matches too.

    A pattern matches a whole path or the last parts of it.

    Raises:
        ConfigError: a pattern matches nothing; `key` is where it is configured.
    """
    paths = list(paths)
    chosen: set[str] = set()
    unmatched: list[str] = []
    for pattern in patterns:
        matching = [path for path in paths if _matches(pattern, path)]
        chosen.update(matching)
        if not matching:
            unmatched.append(pattern)
    if unmatched:
        expected = f"expected patterns of paths such as {', '.join(paths[:MAX_EXAMPLES])}"
        raise ConfigError(f"{key}: {', '.join(unmatched)} matches nothing; {expected}")
    return [path for path in paths if path in chosen]


def _matches(pattern: str, path: str) -> bool:
    """Whether a pattern matches the end of a path, or of the path of a module that it lies in."""
    parts = path.split(".")
    bounds = combinations(range(len(parts) + 1), 2)
    return any(fnmatchcase(".".join(parts[start:end]), pattern) for start, end in bounds)
