"""The launch of this process by `mlx.launch` or MPI, and what `trainer.parallel` requires of it and of the config.

Read from the environment before anything heavy is imported.
"""

import os
from collections.abc import Mapping
from typing import Any

from mlxlab.errors import ConfigError
from mlxlab.schema.dotted_keys import walk
from mlxlab.terminal.wording import shown

RANK_VARIABLES = ("MLX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK")
PROCESSES = "MLXLAB_PROCESSES"  # set by `mlxlab launch`
SIZE_VARIABLES = (PROCESSES, "MLX_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
ELEMENTWISE = ("adamw", "lion", "sgd")  # optimizers that need no more of a weight than a shard
# What these are set to, if it is not what sharded weights (`trainer.parallel=fsdp`) need.
REFUSED = {
    "trainer.step.retry_on_oom": (True, "false: one process alone cannot repeat a step"),
    "trainer.step.activation_checkpointing": (True, "false: activations are recomputed anyway"),
}
EMPTY = {  # these need whole weights
    "callbacks.growth.operations": "none",
    "callbacks.analysis.metrics": "null",
}


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


def refuse_unsharded(config: Mapping[str, Any]) -> None:
    """Raises ConfigError for the first setting of a run that cannot be had with sharded weights."""
    optimizer = config["trainer"]["optimizer"]["_target_"].rpartition(".")[2]
    if optimizer not in ELEMENTWISE:
        _refuse(
            "trainer.optimizer",
            optimizer,
            f"one of {', '.join(ELEMENTWISE)}: others need whole weights",
        )
    for path, value in walk({"trainer": config["trainer"], "callbacks": config.get("callbacks")}):
        if path in REFUSED and value == REFUSED[path][0]:
            _refuse(path, value, REFUSED[path][1])
        if path in EMPTY and value:
            _refuse(path, value, EMPTY[path])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 7


def _refuse(path: str, value: object, expected: str) -> None:
    raise ConfigError(f"{path}={shown(value)}: with trainer.parallel=fsdp expected {expected}")
