"""Names and values as MLflow accepts them."""

import hashlib
import re
from collections.abc import Mapping

MAX_KEY = 250
MAX_PARAM = 6000  # characters of a value
MAX_TAG = 8000

_index = re.compile(r"\[([^\]]*)\]")
_invalid = re.compile(r"[^A-Za-z0-9_\-. :/]")


def clean(key: str) -> str:
    """`key` with what MLflow rejects replaced: `a[0]` -> `a.0`, `f1@5` -> `f1_5`, `../x` -> `_/x`."""
    text = _invalid.sub("_", _index.sub(r".\1", key))
    names = ["_" if name in (".", "..") else name for name in text.split("/") if name]
    text = "/".join(names) or "_"
    if len(text) <= MAX_KEY:
        return text
    return f"{text[: MAX_KEY - 9]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def clean_values(values: Mapping[str, str], max_length: int) -> dict[str, str]:
    """Parameters or tags within MLflow's limits."""
    return {clean(key): truncate(value, max_length) for key, value in values.items()}


def truncate(text: str, limit: int) -> str:
    """The first `limit` characters, ending in `...` if any are missing. Without NUL, which PostgreSQL does not store."""
    text = text.replace("\0", "\ufffd")
    if len(text) <= limit:
        return text
    return f"{text[: limit - 3]}..."
