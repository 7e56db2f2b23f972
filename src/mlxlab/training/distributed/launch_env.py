"""The launch of this process by `mlx.launch` or MPI, read from the environment before anything heavy is imported."""

import os

from mlxlab.errors import ConfigError

RANK_VARIABLES = ("MLX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
PROCESSES = "MLXLAB_PROCESSES"  # set by `mlxlab launch`
SIZE_VARIABLES = (PROCESSES, "MLX_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def rank() -> int:
    """The rank of this process, 0 if it was started alone; raises ConfigError if the launcher's variable holds none."""
    for name in RANK_VARIABLES:
        if value := os.environ.get(name, ""):
            if not _is_number(value):
                raise ConfigError(
                    f"{name}={value[:80]}: expected the rank of this process, a whole number >= 0"
                )
            return int(value)
    return 0


def launched_processes() -> int:
    """The number of processes that a launcher started, 1 if none says so."""
    values = (os.environ.get(name, "") for name in SIZE_VARIABLES)
    return next((int(value) for value in values if _is_number(value)), 1)


def is_launched() -> bool:
    """True if a launcher started this process."""
    return any(os.environ.get(name) for name in RANK_VARIABLES)


def check_parallel(parallel: str) -> None:
    """Raises ConfigError for a `trainer.parallel` of several processes without a launcher."""
    if parallel != "none" and not is_launched():
        raise ConfigError(
            f"trainer.parallel={parallel}: expected a process of `launch nproc=...`, this one was started alone"
        )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 7
