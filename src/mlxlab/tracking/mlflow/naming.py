"""Names and values as MLflow takes them: allowed characters, lengths, flat parameters."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlxlab.tracking.records import utf8

MAX_KEY = 250
MAX_PARAM = 6000  # characters of a value
MAX_TAG = 8000

_index = re.compile(r"\[([^\]]*)\]")
_foreign = re.compile(r"[^A-Za-z0-9_\-. :/]")


def clean(key: str) -> str:
    """`key` with what MLflow refuses replaced: `a[0]` -> `a.0`, `f1@5` -> `f1_5`, `../x` -> `_/x`."""
    text = _foreign.sub("_", _index.sub(r".\1", str(key)))
    parts = ["_" if part in (".", "..") else part for part in text.split("/") if part]
    text = "/".join(parts) or "_"
    if len(text) <= MAX_KEY:
        return text
    return text[: MAX_KEY - 9] + "-" + hashlib.sha256(str(key).encode()).hexdigest()[:8]


def flatten(params: Mapping[str, Any]) -> dict[str, str]:
    """Nested dicts and lists as one flat dict `a.b.0` -> text, cut to MLflow's limits."""
    flat: dict[str, str] = {}
    for path, value in _leaves("", params):
        key = clean(path)
        if key in flat:  # two names became one
            key = f"{key[: MAX_KEY - 9]}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
        flat[key] = truncate(value, MAX_PARAM)
    return flat


def truncate(value: Any, limit: int) -> str:
    """`value` as text of at most `limit` characters, ending in `...` if any are missing."""
    text = utf8(str(value))
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    inner: Any = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    if inner:
        for key, child in inner:
            yield from _leaves(f"{path}.{key}" if path else str(key), child)
    elif path:
        yield path, value
