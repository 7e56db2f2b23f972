"""The overrides of a past run with changes: those recorded, those typed now, and those that restore its config."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mlxlab.config.admission import typed_keys
from mlxlab.config.option_files import is_group
from mlxlab.errors import ConfigError
from mlxlab.past_runs.changes import differences, has_key
from mlxlab.schema.dotted_keys import override_name
from mlxlab.terminal.program import text_value
from mlxlab.terminal.wording import shown

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
    groups = [name for name in map(override_name, typed) if is_group(folders, name)]
    replaced = tuple(f"{key}." for key in typed_keys(groups))
    keys = typed_keys(typed)
    merged = Merged([], [])
    for text in recorded:
        name = override_name(text)
        if is_of_one_run(name) or name.replace("/", ".") in keys:
            continue
        if name.startswith(replaced) and not is_group(folders, name):
            merged.dropped.append(text)
        else:
            merged.overrides.append(text)
    return merged


def is_of_one_run(name: str) -> bool:
    """Whether a key or group is not taken over from a past run."""
    return re.split("[./]", name)[0] in OF_ONE_RUN


def restoring_overrides(saved: dict[str, object], composed: dict[str, object]) -> list[str]:
    """Overrides that make the config of a past run of the one that its recorded overrides compose to now.

    Raises ConfigError for a key that no override can name.
    """
    texts = []
    for key, (_, value) in differences(composed, saved).items():
        if is_of_one_run(key):
            continue
        if not has_key(saved, key):
            texts.append(f"~{key}")
        elif has_key(composed, key):
            texts.append(override_text(key, value))
        else:
            texts.append(f"+{override_text(key, value)}")
    return texts


def override_text(key: str, value: object) -> str:
    """`key=value` as Hydra reads it; raises ConfigError for a key that no override can name."""
    if not _KEY.fullmatch(key):
        raise ConfigError(f"{key}: no override can name this key")
    return f"{key}={_literal(value)}"


def _literal(value: object) -> str:
    if isinstance(value, str):
        return text_value(value)
    if isinstance(value, list):
        return f"[{','.join(map(_literal, value))}]"
    if isinstance(value, dict):
        for key in value:
            if not _DICT_KEY.fullmatch(str(key)):
                raise ConfigError(f"{key}: no override can name this key")
        return "{" + ",".join(f"{key}: {_literal(item)}" for key, item in value.items()) + "}"
    return shown(value)
