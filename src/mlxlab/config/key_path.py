"""Dotted keys as text: `data.batch_size`; a key that itself holds a dot is quoted, `data.mixture['/x/a.txt']`."""

import re

KeyPath = tuple[str, ...]

_SEGMENT = re.compile(r"\['((?:[^'\\]|\\.)*)'\]|\.?([^.\[\]]+)|\.?()(?=\.|$)")
_PLAIN = re.compile(r"[^.\[\]'\\]+")


def join_key(path: str, key: object) -> str:
    """`path` with one more key."""
    name = str(key)
    if _PLAIN.fullmatch(name):
        return f"{path}.{name}" if path else name
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"{path}['{quoted}']"


def format_key(path: KeyPath) -> str:
    """The text of a sequence of keys."""
    text = ""
    for key in path:
        text = join_key(text, key)
    return text


def split_key(text: str) -> KeyPath:
    """The keys of what `join_key` wrote."""
    keys = []
    for match in _SEGMENT.finditer(text):
        quoted, plain, _ = match.groups()
        if quoted is not None:
            keys.append(re.sub(r"\\(.)", r"\1", quoted))
        elif plain is not None:
            keys.append(plain)
    return tuple(keys)
