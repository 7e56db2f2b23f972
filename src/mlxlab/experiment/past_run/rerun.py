"""`rerun=<run>`: trains a past run again in a new folder, with its config and the changes of the command line.

The folder of the past run may be a stranger's: only what `config/admission.py` admits is taken over from it.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mlxlab.config.admission import TRUST, admit, is_trusted, may_override, typed_keys
from mlxlab.dotted_keys import override_name
from mlxlab.errors import ConfigError, InputNotFoundError
from mlxlab.experiment.past_run.lookup import find_run_folder
from mlxlab.experiment.past_run.stored_config import read_run_config
from mlxlab.experiment.reproduction.run_lock import RunLock, read_lock
from mlxlab.program import text_value
from mlxlab.record.run_file import read_run
from mlxlab.record.run_record import RunRecord
from mlxlab.wording import one_line

KEY = "rerun"

logger = logging.getLogger(__name__)
Compose = Callable[
    [list[str]], dict[str, Any]
]  # overrides -> values, where an interpolation may be unresolved


class PastRun(NamedTuple):
    """What a run folder says of its run. `lock` is None of a run that ended before its first step, or of rounds."""

    folder: Path
    record: RunRecord
    config: dict[str, Any]
    lock: RunLock | None

    @property
    def overrides(self) -> list[str]:
        """Those that the run was started with, or as far as known."""
        return self.lock["overrides"] if self.lock else self.record.command.overrides

    @property
    def forked_from(self) -> str | None:
        """The checkpoint of another run that it started from."""
        return self.lock["forked_from"] if self.lock else None


def read_past_run(folder: Path) -> PastRun:
    """Reads a run folder, which anyone may have written.

    Raises:
        InputNotFoundError: it is no run folder, or its run was refused before training.
        DataError, NotAllowedError: one of its files is damaged, or its config is not valid.
    """
    record = read_run(folder)
    lock = None
    with suppress(InputNotFoundError):
        lock = read_lock(folder)
    return PastRun(folder, record, read_run_config(folder), lock)


def expand_rerun(overrides: list[str], folders: list[Path], compose: Compose) -> list[str]:
    """Overrides in which `rerun=<run>` has been followed: those that compose the config of that run, and the changes.

    Args:
        folders: those of config files.

    Raises:
        ConfigError: the overrides contradict each other, or the past run cannot be composed any more.
        InputNotFoundError, DataError, NotAllowedError, ServiceUnavailableError: as `find_run_folder`, `read_past_run`.
    """
    if (name := _past_run_name(overrides)) is None:
        return overrides
    from mlxlab.config.hydra.overrides import typed_values
    from mlxlab.experiment.past_run.recorded_overrides import merge_recorded, restoring_overrides

    typed = [text for text in overrides if override_name(text) not in (KEY, TRUST)]
    values, trusted = typed_values(typed), is_trusted(overrides)
    past = read_past_run(find_run_folder(name, values.get("tracking.uri")))
    start = _start(past, values.get("resume"))
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


def _past_run_name(overrides: list[str]) -> str | None:
    """The value of `rerun`; None if it is not set. Raises ConfigError for several values or none."""
    texts = [text for text in overrides if override_name(text) == KEY]
    if not texts:
        return None
    from mlxlab.config.hydra.overrides import parse

    typed, issues = parse(texts, multirun=False)
    if issues:
        raise ConfigError(f"{issues[0].path}: {issues[0].message}")
    text, value = texts[-1].partition("=")[2], typed[texts[-1]].value()
    if value is None or text == "":
        return None
    return str(value) if isinstance(value, str) else text  # an id may look like a number


def _start(past: PastRun, resume: str | None) -> list[str]:
    """What the new run starts from: the checkpoint that the past one started from, if any."""
    if resume not in (None, "auto", "null"):
        raise ConfigError(
            f"resume={resume}: rerun starts a new run; expected resume=auto, which continues it"
        )
    if past.forked_from is None:
        return []
    if resume is not None:
        raise ConfigError(
            f"resume={resume}: {past.folder} started from {past.forked_from}; leave out resume"
        )
    return [f"resume={text_value(past.forked_from)}"]
