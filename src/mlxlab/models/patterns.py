"""Patterns of paths in a model: `*.attention.query`, `layers.0.*`, `embedding`, `re:backbone\\.layers\\.[01]\\..*`."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from mlxlab.errors import ConfigError

REGULAR_EXPRESSION = "re:"
MAX_EXAMPLES = 3  # of existing paths in a message


def select(patterns: Sequence[str], paths: Iterable[str], key: str) -> list[str]:
    """The paths, in their order, that a pattern matches; those inside of a module whose path it matches too.

    A glob matches a whole path or the last parts of it, a regular expression (of RE2) a whole path.

    Raises:
        ConfigError: a pattern matches nothing, or is not a regular expression; `key` is where it is configured.
    """
    paths = list(paths)
    chosen = set[str]()
    modules = {path: _ancestors(path) for path in paths}
    names = list(dict.fromkeys(name for ancestors in modules.values() for name in ancestors))
    matches = {pattern: _matches(pattern, names, key) for pattern in patterns}
    if unmatched := [pattern for pattern, matched in matches.items() if not matched]:
        expected = f"expected patterns of paths such as {', '.join(paths[:MAX_EXAMPLES])}"
        raise ConfigError(f"{key}: {', '.join(unmatched)} matches nothing; {expected}")
    for matched in matches.values():
        chosen |= {path for path, ancestors in modules.items() if not matched.isdisjoint(ancestors)}
    return [path for path in paths if path in chosen]


def _matches(pattern: str, names: list[str], key: str) -> set[str]:
    """The names that one pattern matches; raises ConfigError for a malformed regular expression."""
    if not pattern.startswith(REGULAR_EXPRESSION):
        return {name for name in names if any(fnmatchcase(end, pattern) for end in _ends(name))}
    import pyarrow as pa  # slow to import, and most patterns are globs
    import pyarrow.compute as pc

    # RE2: its time is linear, whatever the expression. A config may be a stranger's.
    whole = f"^(?:{pattern.removeprefix(REGULAR_EXPRESSION)})$"
    try:
        mask = pc.match_substring_regex(pa.array(names, pa.string()), pattern=whole).to_pylist()
    except pa.ArrowInvalid as error:
        reason = str(error).removeprefix("Invalid regular expression: ").removesuffix(f": {whole}")
        raise ConfigError(f"{key}: {pattern} is not a regular expression: {reason}") from None
    return {name for name, matched in zip(names, mask, strict=True) if matched}


def _ends(path: str) -> list[str]:
    """The path, and its last parts."""
    parts = path.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _ancestors(path: str) -> list[str]:
    """The path of a parameter or layer, and those of the modules that it lies in."""
    parts = path.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
