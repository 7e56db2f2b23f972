"""A Hydra app with the config of `train`, whose jobs do nothing."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

import mlxlab.config.hydra.compose  # noqa: F401  # Its config folders are searched.
from mlxlab.config.check import register_resolvers

CONF = Path(__file__).resolve().parents[2] / "conf"


def nothing(config: DictConfig) -> float:
    """The objective of each job."""
    return 0.0


if __name__ == "__main__":
    from benchmarks.sweeps import launchers_subject  # Functions of `__main__` cannot be pickled.

    register_resolvers()
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(
        launchers_subject.nothing
    )()
