"""`sweep.resume=FOLDER`: the command that started the sweep in a folder, from its journal."""

import os
from argparse import Namespace
from pathlib import Path

from mlxlab.analysis.sweeps.sweep_start import SweepStart, read_sweep_start, untyped
from mlxlab.config.admission import TRUST, is_trusted
from mlxlab.errors import ConfigError, NotAllowedError
from mlxlab.files.untrusted import refuse_links
from mlxlab.schema.dotted_keys import override_name
from mlxlab.terminal.nearest import did_you_mean, nearest
from mlxlab.terminal.program import join, text_value
from mlxlab.terminal.redact import has_credentials, issue_line, why_refused
from mlxlab.terminal.wording import one_line

KEY = "sweep.resume"
_LAUNCHER = "hydra/launcher"
_MAY_CHANGE = (
    _LAUNCHER,
    "hydra.launcher.",
    "hydra.sweeper.trials",
    "hydra.sweeper.retry_failed",
)
_KEYS = (KEY, "hydra.sweep.dir", "hydra.sweep.subdir")
_OWN = (f"{_LAUNCHER}=isolated", f"{_LAUNCHER}=basic")


def resume_sweep(flags: Namespace) -> None:
    """Replaces the flags by those of the command that is continued, if there is `sweep.resume`.

    Raises:
        ConfigError: it stands with overrides that would make other jobs.
        InputNotFoundError, DataError: the folder holds no sweep, or its journal is damaged.
        NotAllowedError: what the journal holds may not be run, or was to be typed again.
    """
    _check_names(flags.overrides)
    named = [text for text in flags.overrides if override_name(text) == KEY]
    if not named:
        return
    from mlxlab.config.hydra.job import typed_values

    value = typed_values(named)[KEY]
    if not value:
        raise ConfigError(f"{named[-1]}: a value is missing; expected the folder of a sweep")
    folder = Path(os.path.abspath(os.path.expanduser(value)))
    refuse_links(folder)
    start = read_sweep_start(folder)
    stored = start["overrides"]
    typed = [text for text in flags.overrides if override_name(text) not in (KEY, TRUST)]
    changes = [text for text in typed if text not in stored]
    for text in changes:
        if not override_name(text).startswith(_MAY_CHANGE):
            raise ConfigError(
                f"{text}: expected hydra/launcher, hydra.launcher.*, hydra.sweeper.trials or"
                f" hydra.sweeper.retry_failed with {KEY}=;"
                " the sweep's own command with more values adds jobs"
            )
    _refuse_unsafe(start, folder)
    if not is_trusted(flags.overrides):
        _refuse_untyped(start, flags, folder)
    changed = tuple(map(override_name, changes))
    if _LAUNCHER in changed:
        changed += ("hydra.launcher.",)  # Another launcher has other settings.
    kept = [text for text in stored if not override_name(text).startswith(changed)]
    flags.overrides = [*kept, *changes, f"hydra.sweep.dir={text_value(str(folder))}"]
    flags.config_dir = flags.config_dir or start["config_dir"]
    flags.config_name = flags.config_name or start["config_name"]
    flags.multirun = True


def _refuse_unsafe(start: SweepStart, folder: Path) -> None:
    """NotAllowedError for what nobody may decide but who types the whole command."""
    for text in start["overrides"]:
        if has_credentials(text):
            raise NotAllowedError(f"{folder}: {why_refused(text)}")
        if override_name(text) == _LAUNCHER and text not in _OWN:
            raise NotAllowedError(
                f"{folder}: {one_line(text, 80)} runs commands of its own; repeat the sweep's command"
            )


def _refuse_untyped(start: SweepStart, flags: Namespace, folder: Path) -> None:
    """NotAllowedError for what the journal of a sweep may not decide, and was not typed again."""
    typed = set(flags.overrides)
    if flags.config_dir is not None:
        typed.add(f"--config-dir={start['config_dir']}")
    if flags.config_name is not None:
        typed.add(f"--config-name={start['config_name']}")
    missing = [text for text in untyped(start) if text not in typed]
    if missing:
        texts = one_line(join(missing), 300)
        raise NotAllowedError(f"{folder}: {texts}: type it again, or {TRUST}=true")


def _check_names(overrides: list[str]) -> None:
    """Raises ConfigError, with the nearest key, for another key of `sweep.`, which is a group of options."""
    for text in overrides:
        name = override_name(text)
        if name.startswith("sweep.") and name != KEY:
            raise ConfigError(
                issue_line(one_line(text, 120), f"unknown key{did_you_mean(nearest(name, _KEYS))}")
            )
