"""Names and values that MLflow accepts: allowed characters and lengths."""

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
    if len(text) <= MAX_KEY:
        return text
    return text[: MAX_KEY - 9] + "-" + hashlib.sha256(key.encode()).hexdigest()[:8]


def clean_model_name(name: str) -> str:
    """`clean`, without the characters that a model's URI needs."""
    return re.sub(r"[/:.]", "_", clean(name))


def clean_params(params: Mapping[str, str]) -> dict[str, str]:
    """Parameters within MLflow's limits; names that differ stay different."""
    result: dict[str, str] = {}
    for name, value in params.items():
        key = clean(name)
        if key in result:
            key = f"{key[: MAX_KEY - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        result[key] = truncate(value, MAX_PARAM)
    return result


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags within MLflow's limits."""
    return {clean(key): truncate(value, MAX_TAG) for key, value in tags.items()}


def truncate(text: str, limit: int) -> str:
    """At most `limit` characters, ending in `...` if any are missing."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
