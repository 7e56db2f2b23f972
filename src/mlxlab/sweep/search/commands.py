"""The command that repeats a trial of a search, as the user types it."""

import shlex
from collections.abc import Sequence

from omegaconf import DictConfig

from mlxlab.config.hydra.overrides import as_typed
from mlxlab.config.hydra.search_space import Point, override_texts

_OWN = (
    "hydra.sweep.dir=",
    "hydra.mode=",
    "hydra.sweeper.",
    "hydra/sweeper=",
    "hydra/launcher=",
    "hydra.launcher.",
)


def trial_command(config: DictConfig, overrides: Sequence[str], point: Point) -> str:
    """Trains the point of a trial again, as a run of its own.

    Args:
        config: that of the sweep.
        overrides: of every trial.
    """
    flags: list[str] = []
    for source in config.hydra.runtime.config_sources:
        if source.provider == "command-line":
            flags += ["--config-dir", source.path]
    if config.hydra.job.config_name != "train":
        flags += ["--config-name", config.hydra.job.config_name]

    typed = as_typed(config.hydra.overrides.hydra)
    hydra = [text for text in typed if not text.lstrip("+").startswith(_OWN)]
    if any(text.startswith("sweep=") for text in overrides):
        hydra.insert(0, "hydra.mode=RUN")
    return f"mlxlab train {shlex.join([*flags, *hydra, *overrides, *override_texts(point)])}"
