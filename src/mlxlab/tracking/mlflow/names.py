"""Names and values as MLflow accepts them."""

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache

MAX_KEY = 250
MAX_PARAM = 6000  # characters of a value
MAX_TAG = 8000

_index = re.compile(r"\[([^\]]*)\]")
_invalid = re.compile(r"[^A-Za-z0-9_\-. :/]")


@lru_cache(maxsize=10_000)
def clean(key: str) -> str:
    """`key` with what MLflow rejects replaced: `a[0]` -> `a.0`, `f1@5` -> `f1_5`, `../x` -> `_/x`."""
    text = _invalid.sub("_", _index.sub(r".\1", key))
    names = ["_" if name in (".", "..") else name for name in text.split("/") if name]
    text = "/".join(names) or "_"
    return text if len(text) <= MAX_KEY else _with_digest(text, key)


def clean_params(params: Mapping[str, str]) -> dict[str, str]:
    """Parameters within MLflow's limits; names that differ stay different."""
    result: dict[str, str] = {}
    for name, value in params.items():
        key = clean(name)
        if key in result:
            key = _with_digest(key, name)
        result[key] = truncate(value, MAX_PARAM)
    return result


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {clean(key): truncate(value, MAX_TAG) for key, value in tags.items()}


def truncate(text: str, limit: int) -> str:
    """The first `limit` characters, ending in `...` if any are missing. Without NUL, which PostgreSQL does not store."""
    text = text.replace("\0", "\ufffd")
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _with_digest(text: str, key: str) -> str:
    return f"{text[: MAX_KEY - 9]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
