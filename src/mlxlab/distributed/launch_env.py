"""Which of several processes this is, before anything heavy is imported: what `mlx.launch` and MPI put there."""

import os

NAMES = ("MLX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")


def rank() -> int:
    """The number of this process among those that were started together, 0 if it is alone."""
    found = (os.environ[name] for name in NAMES if os.environ.get(name, "").isdigit())
    return int(next(found, "0"))


def is_launched() -> bool:
    """Was this process started together with others?"""
    return any(name in os.environ for name in NAMES)
