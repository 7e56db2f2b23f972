"""`rerun=<run>`: trains a past run again in a new folder, with its config and the changes of the command line.

The folder of the past run may be a stranger's: only what `config/admission.py` admits is taken over from it.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mlxlab.config.admission import TRUST, admit, is_trusted, may_override, typed_keys
from mlxlab.errors import ConfigError, InputNotFoundError
from mlxlab.past_runs.lookup import find_run_folder
from mlxlab.past_runs.run_lock import read_lock
from mlxlab.past_runs.stored_config import read_run_config
from mlxlab.record.run_file import read_run
from mlxlab.schema.dotted_keys import override_name
from mlxlab.terminal.program import text_value
from mlxlab.terminal.wording import one_line

KEY = "rerun"

logger = logging.getLogger(__name__)
# Composes overrides to values, where an interpolation may be unresolved.
Compose = Callable[[list[str]], dict[str, Any]]


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
    forked_from: str | None = None
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
    from mlxlab.past_runs.recorded_overrides import merge_recorded, restoring_overrides

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
    start: list[str] = []
    if past.forked_from is not None:
        start = [f"resume={text_value(past.forked_from)}"]
    resume = values.get("resume", "null")
    if resume != "null" and (start or resume != "auto"):
        expected = "rerun starts a new run where the past one started; leave out resume"
        raise ConfigError(f"resume={resume}: {expected}")
    recorded = [text for text in past.overrides if trusted or may_override(text)]
    recorded = merge_recorded(recorded, [], folders).overrides
    try:
        composed = compose(recorded)
    except ConfigError as error:
        first = str(error).partition("\n")[0]
        advice = "options of your own need --config-dir"
        raise ConfigError(f"{past.folder}: cannot be composed again: {first}; {advice}") from None
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
