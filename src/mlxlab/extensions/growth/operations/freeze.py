"""Parameters that are trained from an operation on, or no longer."""

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.arrays import Sources, same_arrays
from mlxlab.extensions.growth.operations.schema import Freeze, Unfreeze
from mlxlab.models.adapters.freeze import adapter_paths, select_paths
from mlxlab.models.build import Architecture
from mlxlab.terminal.nearest import suggestion


def freeze_node(operation: Freeze, before: Architecture) -> Architecture:
    """The architecture with these patterns in `freeze` too."""
    patterns = dict.fromkeys([*(before.node.get("freeze") or ()), *operation["patterns"]])
    return before.with_keys(freeze=[*patterns])


def unfreeze_node(operation: Unfreeze, before: Architecture) -> Architecture:
    """The architecture without these patterns in `freeze`, of which it must have each."""
    frozen = list(before.node.get("freeze") or ())
    patterns = operation.get("patterns")
    if patterns is None:
        return before.with_keys(freeze=[])
    for pattern in patterns:
        if pattern not in frozen:
            nearest = suggestion(pattern, frozen)
            raise ConfigError(f"patterns: {pattern} is not a pattern of model.freeze{nearest}")
    return before.with_keys(freeze=[each for each in frozen if each not in patterns])


def freeze_arrays(
    operation: Freeze, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """All arrays; ConfigError if a pattern matches nothing, or nothing is left to train."""
    select_paths(arrays, operation["patterns"], "patterns")
    frozen = select_paths(arrays, freeze_node(operation, before).node["freeze"], "model.freeze")
    is_adapted = bool(adapter_paths(arrays))  # Adapters of frozen layers are trained.
    if len(frozen) == len(arrays) and not is_adapted:
        raise ConfigError("patterns: nothing is left to train")
    return same_arrays(arrays)


def unfreeze_arrays(
    operation: Unfreeze, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """All arrays; those that are trained again start with a new optimizer state."""
    return same_arrays(arrays)
