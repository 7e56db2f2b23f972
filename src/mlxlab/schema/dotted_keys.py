"""Dotted keys of nested mappings and lists: `data.batch_size`, `tags['a.b']`, `trainer.teachers.0`."""

import re
from collections.abc import Iterable, Iterator

_SEGMENT = re.compile(r"\['((?:[^'\\]|\\.)*)'\]|\.?([^.\[\]]+)")
_UNQUOTED = re.compile(r"[^.\[\]'\\]+")


def walk(tree: object, path: str = "", *, lists: bool = True) -> Iterator[tuple[str, object]]:
    """(dotted key, value) of the tree itself and of everything in it; without `lists` not of the items of lists."""
    yield path, tree
    entries: Iterable[tuple[object, object]] = ()
    if isinstance(tree, dict):
        entries = tree.items()
    elif isinstance(tree, list) and lists:
        entries = enumerate(tree)
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


def split_key(text: str) -> tuple[str, ...]:
    """The keys that `join_key` joined."""
    return tuple(name or re.sub(r"\\(.)", r"\1", quoted) for quoted, name in _SEGMENT.findall(text))


def override_name(override: str) -> str:
    """The key or group that an override sets."""
    return override.lstrip("+~").split("=", 1)[0].split("@")[0]
