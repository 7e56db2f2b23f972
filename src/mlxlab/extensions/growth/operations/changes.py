"""The operations that change an architecture: functions of the `model` node and of named arrays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeGuard

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.extensions.growth.arrays import Sources
from mlxlab.extensions.growth.operations import (
    add_heads,
    freeze,
    grow_width,
    lora,
    resize_vocabulary,
    stack,
    widen,
)
from mlxlab.extensions.growth.operations.schema import ArchitectureOperation, Operation
from mlxlab.models.build import Architecture


class ArchitectureChange(NamedTuple):
    """An operation: the architecture after it, and (arrays, their sources) after it, for a seed.

    Without a seed nothing is drawn, so that names and shapes cost nothing.
    """

    node: Callable[[Any, Architecture], Architecture]
    arrays: Callable[[Any, Architecture, Arrays, int | None], tuple[Arrays, Sources]]


CHANGES: Mapping[str, ArchitectureChange] = {
    "stack": ArchitectureChange(stack.stack_node, stack.stack_arrays),
    "widen": ArchitectureChange(widen.widen_node, widen.widen_arrays),
    "add_heads": ArchitectureChange(add_heads.add_heads_node, add_heads.add_heads_arrays),
    "grow_width": ArchitectureChange(grow_width.grow_width_node, grow_width.grow_width_arrays),
    "resize_vocabulary": ArchitectureChange(
        resize_vocabulary.resize_vocabulary_node, resize_vocabulary.resize_vocabulary_arrays
    ),
    "set_lora": ArchitectureChange(lora.set_lora_node, lora.set_lora_arrays),
    "merge_lora": ArchitectureChange(lora.merge_lora_node, lora.merge_lora_arrays),
    "freeze": ArchitectureChange(freeze.freeze_node, freeze.freeze_arrays),
    "unfreeze": ArchitectureChange(freeze.unfreeze_node, freeze.unfreeze_arrays),
}


def changes_architecture(operation: Operation) -> TypeGuard[ArchitectureOperation]:
    """False for an operation that changes settings."""
    return operation["op"] in CHANGES
