"""The command that repeats a trial of a search, as the user types it."""

import shlex

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


class Commands:
    """Those of one search.

    Args:
        config: that of the sweep.
        overrides: of every trial.
    """

    def __init__(self, config: DictConfig, overrides: list[str]) -> None:
        self.overrides = overrides
        self.hydra = [
            text
            for text in as_typed(config.hydra.overrides.hydra)
            if not text.lstrip("+").startswith("hydra.mode=")
        ]
        sources = config.hydra.runtime.config_sources
        folders = [source.path for source in sources if source.provider == "command-line"]
        name = config.hydra.job.config_name
        self.flags = [text for path in folders for text in ("--config-dir", path)]
        self.flags += [] if name == "train" else ["--config-name", name]

    def trial(self, point: Point) -> str:
        """Trains the point of a trial again, as a run of its own."""
        hydra = [text for text in self.hydra if not text.lstrip("+").startswith(_OWN)]
        single = (
            ["hydra.mode=RUN"] if any(text.startswith("sweep=") for text in self.overrides) else []
        )
        return self._command([*single, *hydra, *self.overrides, *override_texts(point)])

    def _command(self, args: list[str]) -> str:
        return f"mlxlab train {shlex.join([*self.flags, *args])}"
