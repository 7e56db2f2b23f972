"""The operations that change an architecture, by name: pure functions of the `model` node and of named arrays."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeGuard

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.extensions.growth.arrays import Sources
from mlxlab.extensions.growth.operations.add_heads import add_heads_arrays, add_heads_node
from mlxlab.extensions.growth.operations.freeze import (
    freeze_arrays,
    freeze_node,
    unfreeze_arrays,
    unfreeze_node,
)
from mlxlab.extensions.growth.operations.grow_vocabulary import (
    grow_vocabulary_arrays,
    grow_vocabulary_node,
)
from mlxlab.extensions.growth.operations.grow_width import grow_width_arrays, grow_width_node
from mlxlab.extensions.growth.operations.lora import (
    merge_lora_arrays,
    merge_lora_node,
    set_lora_arrays,
    set_lora_node,
)
from mlxlab.extensions.growth.operations.resize_vocabulary import (
    resize_vocabulary_arrays,
    resize_vocabulary_node,
)
from mlxlab.extensions.growth.operations.schema import ArchitectureOperation, Operation
from mlxlab.extensions.growth.operations.stack import stack_arrays, stack_node
from mlxlab.extensions.growth.operations.widen import widen_arrays, widen_node
from mlxlab.models.build import Architecture

Grow = Callable[[Any, Architecture, Arrays, int | None], tuple[Arrays, Sources]]


class ArchitectureChange(NamedTuple):
    """An operation: the architecture after it, and (arrays, their sources) after it, for a seed.

    Without a seed nothing is drawn, so that names and shapes cost nothing.
    """

    node: Callable[[Any, Architecture], Architecture]
    arrays: Grow


CHANGES: Mapping[str, ArchitectureChange] = {
    "stack": ArchitectureChange(stack_node, stack_arrays),
    "widen": ArchitectureChange(widen_node, widen_arrays),
    "add_heads": ArchitectureChange(add_heads_node, add_heads_arrays),
    "grow_width": ArchitectureChange(grow_width_node, grow_width_arrays),
    "resize_vocabulary": ArchitectureChange(resize_vocabulary_node, resize_vocabulary_arrays),
    "grow_vocabulary": ArchitectureChange(grow_vocabulary_node, grow_vocabulary_arrays),
    "set_lora": ArchitectureChange(set_lora_node, set_lora_arrays),
    "merge_lora": ArchitectureChange(merge_lora_node, merge_lora_arrays),
    "freeze": ArchitectureChange(freeze_node, freeze_arrays),
    "unfreeze": ArchitectureChange(unfreeze_node, unfreeze_arrays),
}


def changes_architecture(operation: Operation) -> TypeGuard[ArchitectureOperation]:
    """Whether an operation is one of CHANGES; the others change settings."""
    return operation["op"] in CHANGES
