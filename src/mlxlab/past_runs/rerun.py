"""`rerun=<run>`: trains a past run again in a new folder, with its config and the changes of the command line.

The folder of the past run may be a stranger's: only what `config/admission.py` admits is taken over from it.
"""

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mlxlab.config.admission import TRUST, admit, is_trusted, may_override, typed_keys
from mlxlab.config.option_files import is_group
from mlxlab.errors import ConfigError, InputNotFoundError
from mlxlab.past_runs.changes import differences, has_key
from mlxlab.past_runs.lookup import find_run_folder, read_run_config
from mlxlab.past_runs.run_lock import read_lock
from mlxlab.record.run_file import read_run
from mlxlab.schema.dotted_keys import override_name
from mlxlab.terminal.program import text_value
from mlxlab.terminal.wording import one_line, shown

KEY = "rerun"

logger = logging.getLogger(__name__)
# Composes overrides to values, where an interpolation may be unresolved.
Compose = Callable[[list[str]], dict[str, Any]]
# Keys and groups that say what one run is called, what it starts from, and where it is.
OF_ONE_RUN = ("name", "rerun", "resume", "resume_policy", "trust_folder", "hydra")
_KEY = re.compile(r"[\w@/-]+(\.[\w@/-]+)*")
_DICT_KEY = re.compile(r"[\w./%+-]+")


class PastRun(NamedTuple):
    """What a run folder says of its run.

    Args:
        overrides: those that it was started with.
        forked_from: the checkpoint of another run that it started from.
    """

    folder: Path
    config: dict[str, Any]
    overrides: list[str]
    forked_from: str | None


def read_past_run(folder: Path) -> PastRun:
    """Reads a run folder, which anyone may have written.

    Raises:
        InputNotFoundError: it is no run folder, or its run was refused before training.
        DataError, NotAllowedError: one of its files is damaged, or its config is not valid.
    """
    overrides = read_run(folder).command.overrides
    forked_from = None
    with suppress(InputNotFoundError):  # A run that ended before its first step has no lock.
        lock = read_lock(folder)
        overrides = lock["overrides"]
        forked_from = lock["forked_from"]
    return PastRun(folder, read_run_config(folder), overrides, forked_from)


def expand_rerun(overrides: list[str], folders: list[Path], compose: Compose) -> list[str]:
    """Overrides in which `rerun=<run>` has been followed: those that compose the config of that run, and the changes.

    Args:
        folders: those of config files.

    Raises:
        ConfigError: the overrides contradict each other, or the past run cannot be composed any more.
        InputNotFoundError, DataError, NotAllowedError, ServiceUnavailableError: as `find_run_folder`, `read_past_run`.
    """
    from mlxlab.config.hydra.job import parse, typed_values

    name = typed_values(overrides).get(KEY, "null")
    if name in ("", "null"):
        return overrides
    _, issues = parse([text for text in overrides if override_name(text) == KEY], multirun=False)
    if issues:
        raise ConfigError(f"{issues[0].path}: {issues[0].message}")
    typed = [text for text in overrides if override_name(text) not in (KEY, TRUST)]
    values = typed_values(typed)
    trusted = is_trusted(overrides)
    past = read_past_run(find_run_folder(name, values.get("tracking.uri")))
    start = []
    if past.forked_from is not None:
        start = [f"resume={text_value(past.forked_from)}"]
    resume = values.get("resume", "null")
    if resume != "null" and (start or resume != "auto"):
        raise ConfigError(
            f"resume={resume}: rerun starts a new run where the past one started; leave out resume"
        )
    recorded = [text for text in past.overrides if trusted or may_override(text)]
    recorded = merge_recorded(recorded, [], folders).overrides
    try:
        composed = compose(recorded)
    except ConfigError as error:
        first = str(error).partition("\n")[0]
        raise ConfigError(
            f"{past.folder}: cannot be composed again: {first}; "
            "options of your own need --config-dir"
        ) from None
    config = admit(past.config, composed, str(past.folder), typed_keys(typed), trusted=trusted)
    restoring = restoring_overrides(config, composed)
    restored = {override_name(text) for text in restoring}
    recorded = [text for text in recorded if override_name(text) not in restored]
    merged = merge_recorded([*recorded, *restoring], typed, folders)
    if restored:
        names = one_line(", ".join(sorted(restored)))
        logger.info(
            f"{past.folder}: conf/ has other values now, those of the run are used: {names}"
        )
    if merged.dropped:
        logger.info(
            f"{past.folder}: left out for another option: {one_line(' '.join(merged.dropped))}"
        )
    return [
        *merged.overrides,
        f"{KEY}={text_value(str(past.folder))}",
        *start,
        *typed,
    ]


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
