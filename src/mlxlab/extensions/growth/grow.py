"""The operations that change an architecture, and what they make of a model in training."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeGuard

import mlx.nn as nn
import mlx.optimizers as optim

from mlxlab.checkpoint.arrays import Arrays, shapes
from mlxlab.errors import ConfigError
from mlxlab.extensions.growth.arrays import Sources
from mlxlab.extensions.growth.operations import stack, trainable, widths
from mlxlab.extensions.growth.operations.schema import ArchitectureOperation, Operation
from mlxlab.extensions.growth.optimizer_state import (
    OptimizerReport,
    average_of,
    frozen_as_evaluated,
    transfer_optimizer,
)
from mlxlab.models.build import Architecture
from mlxlab.models.layers import named_parameters
from mlxlab.training.optim.optimizers import flatten_arrays
from mlxlab.training.state import TrainState


class ArchitectureChange(NamedTuple):
    """An operation: the architecture after it, and (arrays, their sources) after it, for a seed.

    Without a seed nothing is drawn, so that names and shapes cost nothing.
    """

    node: Callable[[Any, Architecture], Architecture]
    arrays: Callable[[Any, Architecture, Arrays, int | None], tuple[Arrays, Sources]]


CHANGES: Mapping[str, ArchitectureChange] = {
    "stack": ArchitectureChange(stack.stack_node, stack.stack_arrays),
    "widen": ArchitectureChange(widths.widen_node, widths.widen_arrays),
    "add_heads": ArchitectureChange(widths.add_heads_node, widths.add_heads_arrays),
    "grow_width": ArchitectureChange(widths.grow_width_node, widths.grow_width_arrays),
    "resize_vocabulary": ArchitectureChange(
        widths.resize_vocabulary_node, widths.resize_vocabulary_arrays
    ),
    "set_lora": ArchitectureChange(trainable.set_lora_node, trainable.set_lora_arrays),
    "merge_lora": ArchitectureChange(trainable.merge_lora_node, trainable.merge_lora_arrays),
    "freeze": ArchitectureChange(trainable.freeze_node, trainable.freeze_arrays),
    "unfreeze": ArchitectureChange(trainable.unfreeze_node, trainable.unfreeze_arrays),
}


def changes_architecture(operation: Operation) -> TypeGuard[ArchitectureOperation]:
    """False for an operation that changes settings."""
    return operation["op"] in CHANGES


class Training(NamedTuple):
    """A model in training by its arrays: all weights, and the optimizer state, by path."""

    architecture: Architecture
    weights: Arrays
    optimizer: Arrays


class Grown(NamedTuple):
    """What an operation made of a training. `model` does not have the weights yet."""

    training: Training
    model: nn.Module
    report: OptimizerReport


def grow(
    operation: ArchitectureOperation,
    before: Training,
    new_training: Callable[[Architecture], tuple[nn.Module, optim.Optimizer]],
    seed: int | None,
) -> Grown:
    """The training after the operation; its arrays are not evaluated.

    Args:
        new_training: a model of an architecture, and its optimizer.
        seed: of what is drawn; None draws nothing.

    Raises:
        ConfigError: the operation does not fit the model.
    """
    change: Any = CHANGES[operation["op"]]
    try:
        after = change.node(operation, before.architecture)
    except KeyError as key:  # A model of mlx-lm has the sizes of its own config.
        raise ConfigError(f"the model has no key {key}") from None
    weights, sources = change.arrays(operation, before.architecture, before.weights, seed)
    averages = weights
    average = average_of(before.optimizer)
    if average:
        averages, _ = change.arrays(operation, before.architecture, before.weights | average, seed)
    model, new_optimizer = new_training(after)
    different = shapes(weights).items() ^ shapes(named_parameters(model)).items()
    if different:
        path, _ = min(different)
        raise ConfigError(f"{operation['op']}: the new model has other arrays, for example {path}")
    optimizer = flatten_arrays(new_optimizer.state)
    weights = frozen_as_evaluated(weights, averages, optimizer)
    state, report = transfer_optimizer(
        before.optimizer, optimizer, before.weights, [sources], averages, by_shape=False
    )
    return Grown(Training(after, weights, state), model, report)


def training_of(state: TrainState) -> Training:
    """The model of a run and its optimizer."""
    optimizer = flatten_arrays(state.optimizer.state)
    return Training(state.architecture, named_parameters(state.model), optimizer)
