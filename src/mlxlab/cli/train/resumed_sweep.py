"""`sweep.resume=FOLDER`: the command that started the sweep in a folder, from its journal."""

import os
from argparse import Namespace
from pathlib import Path

from mlxlab.config.issues import one_line
from mlxlab.config.resume_overrides import override_name
from mlxlab.errors import ConfigError, NotAllowedError
from mlxlab.experiment.sweep_start import read_sweep_start
from mlxlab.redact import has_credentials, why_refused

KEY = "sweep.resume"
_LAUNCHER = "hydra/launcher"
_OWN = (f"{_LAUNCHER}=isolated", f"{_LAUNCHER}=in_process")


def resume_sweep(flags: Namespace) -> Namespace:
    """The flags of the command that is continued; without `sweep.resume` the same ones.

    Raises:
        ConfigError: it stands with overrides that would make other jobs.
        InputNotFoundError, DataError: the folder holds no sweep, or its journal is damaged.
        NotAllowedError: what the journal holds may not be run.
    """
    named = [text for text in flags.overrides if override_name(text) == KEY]
    if not named:
        return flags
    typed = [text for text in flags.overrides if text not in named]
    if other := [text for text in typed if not override_name(text).startswith(("hydra.launcher.", _LAUNCHER))]:
        raise ConfigError(f"{other[0]}: only hydra.launcher... may be changed with {KEY}=")
    folder = Path(os.path.abspath(os.path.expanduser(named[-1].partition("=")[2].strip("'\""))))
    start = read_sweep_start(folder)
    for text in start["overrides"]:
        if has_credentials(text):
            raise NotAllowedError(f"{folder}: {why_refused(text)}")
        if override_name(text) == _LAUNCHER and text not in _OWN:
            raise NotAllowedError(
                f"{folder}: {one_line(text, 80)} runs commands of its own; repeat the sweep's command"
            )
    changed = [override_name(text) for text in typed]
    overrides = [text for text in start["overrides"] if override_name(text) not in changed]
    quoted = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return Namespace(
        **{
            **vars(flags),
            "overrides": [*overrides, *typed, f"hydra.sweep.dir='{quoted}'"],
            "config_dir": flags.config_dir or start["config_dir"],
            "config_name": flags.config_name or start["config_name"],
            "multirun": True,
        }
    )
