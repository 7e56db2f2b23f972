"""The overrides of a past run with changes: those recorded, those typed now, and those that restore its config."""

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mlxlab.config.issues import UNRESOLVED, join_key
from mlxlab.config.resume_overrides import override_name
from mlxlab.errors import ConfigError
from mlxlab.program import text_value

# Keys and groups that say what one run is called, what it starts from, and where it is.
OF_ONE_RUN = ("name", "rerun", "resume", "resume_policy", "trust_folder", "hydra")
_KEY = re.compile(r"[\w@/-]+(\.[\w@/-]+)*")
_DICT_KEY = re.compile(r"[\w./%+-]+")


class Merged(NamedTuple):
    """The overrides recorded of a past run that still hold; `dropped` were of an option that another one replaces."""

    overrides: list[str]
    dropped: list[str]


def merge_recorded(
    recorded: Sequence[str], typed: Sequence[str], folders: Sequence[Path]
) -> Merged:
    """The recorded overrides without those that the ones typed replace.

    A typed option of a config group, such as `model=transformer`, begins with its own values: what was recorded of its
    keys (`model.dropout=0.2`) is dropped, other groups (`model/size=tiny`) are kept.

    Args:
        folders: those of config files, which know the groups.
    """
    names = {_dotted(override_name(text)) for text in typed}
    groups = [
        name
        for name in map(override_name, typed)
        if any((folder / name).is_dir() for folder in folders)
    ]
    merged, dropped = Merged([], []), [f"{_dotted(group)}." for group in groups]
    for text in recorded:
        name = override_name(text)
        if is_of_one_run(name) or _dotted(name) in names:
            continue
        is_group = any((folder / name).is_dir() for folder in folders)
        (
            merged.dropped if not is_group and name.startswith(tuple(dropped)) else merged.overrides
        ).append(text)
    return merged


def is_of_one_run(name: str) -> bool:
    """Whether a key or group is not taken over from a past run."""
    return re.split("[./]", name)[0] in OF_ONE_RUN


def restoring_overrides(saved: dict[str, object], composed: dict[str, object]) -> list[str]:
    """Overrides that make the config of a past run of the one that its recorded overrides compose to now.

    Raises ConfigError for a key that no override can name.
    """
    kept, current = (
        {key: value for key, value in config.items() if not is_of_one_run(key)}
        for config in (saved, composed)
    )
    return list(_differences(kept, current, ""))


def override_text(key: str, value: object) -> str:
    """`key=value` as Hydra reads it; raises ConfigError for a key that no override can name."""
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{key}: no override can name this key")
    return f"{key}={_literal(value)}"


def _dotted(name: str) -> str:
    return name.replace("/", ".")


def _differences(saved: dict[str, object], composed: dict[str, object], path: str) -> Iterator[str]:
    for name in dict.fromkeys([*composed, *saved]):
        key, old, new = join_key(path, name), saved.get(name), composed.get(name, UNRESOLVED)
        if name not in saved:
            yield f"~{key}"
        elif isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, key)
        elif old != new:
            yield f"{'' if name in composed else '+'}{override_text(key, old)}"


def _literal(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float() if not math.isfinite(value):
            return str(value)
        case int() | float():
            return repr(value)
        case list():
            return f"[{','.join(map(_literal, value))}]"
        case dict():
            if unnamed := [key for key in value if not _DICT_KEY.fullmatch(str(key))]:
                raise ConfigError(f"{unnamed[0]}: no override can name this key")
            return "{" + ",".join(f"{key}: {_literal(item)}" for key, item in value.items()) + "}"
        case _:
            return text_value(str(value))
