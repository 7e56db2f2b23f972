"""The rank of this process by the environment of `mlx.launch` or MPI, before anything heavy is imported."""

import os

RANK_VARIABLES = ("MLX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")


def rank() -> int:
    """The rank of this process; 0 if it was started alone."""
    values = (os.environ[name] for name in RANK_VARIABLES if os.environ.get(name, "").isdigit())
    return int(next(values, "0"))


def is_launched() -> bool:
    """Whether this process was started together with others."""
    return any(name in os.environ for name in RANK_VARIABLES)
