"""Settings that a run with sharded weights (`trainer.parallel=fsdp`) cannot have."""

from collections.abc import Mapping
from typing import Any

from mlxlab.errors import ConfigError
from mlxlab.schema.dotted_keys import walk
from mlxlab.terminal.wording import shown

ELEMENTWISE = ("adamw", "lion", "sgd")  # optimizers that need no more of a weight than a shard
REFUSED = {  # what these are set to, if it is not what is expected
    "trainer.step.retry_on_oom": (True, "false: one process alone cannot repeat a step"),
    "trainer.step.activation_checkpointing": (True, "false: activations are recomputed anyway"),
}
EMPTY = {  # these need whole weights, or the activations inside of layers
    "feature_matching": "none",
    "callbacks.growth.operations": "none",
    "callbacks.analysis.metrics": "null",
}


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
        names = [name for name in EMPTY if path == name or path.endswith(f".{name}")]
        if names and value:
            _refuse(path, value, EMPTY[names[0]])


def _refuse(path: str, value: object, expected: str) -> None:
    raise ConfigError(f"{path}={shown(value)}: with trainer.parallel=fsdp expected {expected}")
