"""Parameters that are trained from an operation on, or no longer."""

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.arrays import Source, Sources
from mlxlab.extensions.growth.operations.schema import Freeze, Unfreeze
from mlxlab.models.adapters.freeze import adapter_paths, select_paths
from mlxlab.models.build import Architecture
from mlxlab.nearest import suggestion


def freeze_node(operation: Freeze, before: Architecture) -> Architecture:
    """The architecture with these patterns in `freeze` too."""
    patterns = dict.fromkeys([*(before.node.get("freeze") or ()), *operation["patterns"]])
    return before.with_keys(freeze=[*patterns])


def unfreeze_node(operation: Unfreeze, before: Architecture) -> Architecture:
    """The architecture without these patterns in `freeze`; ConfigError for one that it does not have."""
    frozen = list(before.node.get("freeze") or ())
    patterns = operation.get("patterns")
    for pattern in patterns or ():
        if pattern not in frozen:
            raise ConfigError(
                f"patterns: {pattern} is not a pattern of model.freeze{suggestion(pattern, frozen)}"
            )
    left = [] if patterns is None else [pattern for pattern in frozen if pattern not in patterns]
    return before.with_keys(freeze=left)


def freeze_arrays(
    operation: Freeze, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """All arrays as they are; ConfigError if a pattern matches nothing, or nothing is left to train."""
    select_paths(arrays, operation["patterns"], "patterns")
    frozen = select_paths(arrays, freeze_node(operation, before).node["freeze"], "model.freeze")
    if len(frozen) == len(arrays) and not adapter_paths(
        arrays
    ):  # adapters of frozen layers are trained
        raise ConfigError("patterns: nothing is left to train")
    return same_arrays(arrays)


def unfreeze_arrays(
    operation: Unfreeze, before: Architecture, arrays: Arrays, seed: int | None
) -> tuple[Arrays, Sources]:
    """All arrays as they are; parameters that are trained again start with a new optimizer state."""
    return same_arrays(arrays)


def same_arrays(arrays: Arrays) -> tuple[Arrays, Sources]:
    """All arrays, each made of itself."""
    return dict(arrays), {path: Source(path) for path in arrays}
