"""Applies an operation to a model in training: its weights, their average, and the optimizer state."""

from collections.abc import Callable
from typing import Any, NamedTuple

from mlxlab.checkpoint.arrays import Arrays, shapes
from mlxlab.errors import ConfigError
from mlxlab.growth.arrays import Sources
from mlxlab.growth.operations.changes import CHANGES
from mlxlab.growth.operations.schema import ArchitectureOperation
from mlxlab.growth.optimizer_state import (
    TransferCounts,
    WeightChange,
    average_of,
    frozen_as_evaluated,
    transfer_optimizer,
)
from mlxlab.models.build import Architecture


class Training(NamedTuple):
    """A model in training by its arrays: all weights by path, and the optimizer state by path."""

    architecture: Architecture
    weights: Arrays
    optimizer: Arrays


class Grown(NamedTuple):
    """What an operation made of a training, and what its weights were made of."""

    training: Training
    counts: TransferCounts
    sources: Sources


def grow(
    operation: ArchitectureOperation,
    before: Training,
    new_state: Callable[[Architecture], tuple[Arrays, Arrays]],
    seed: int | None,
) -> Grown:
    """The training after the operation; its arrays are not evaluated.

    Args:
        new_state: weights and optimizer state of a new model of an architecture, for their names and shapes.
        seed: of what is drawn; None draws nothing.

    Raises:
        ConfigError: the operation does not fit the model.
    """
    change: Any = CHANGES[operation["op"]]
    after = change.node(operation, before.architecture)
    weights, sources = change.arrays(operation, before.architecture, before.weights, seed)
    average = average_of(before.optimizer)
    averages = weights
    if average:
        averages, _ = change.arrays(operation, before.architecture, before.weights | average, seed)
    template, optimizer = new_state(after)
    if shapes(weights) != shapes(template):
        different = sorted(dict(shapes(weights).items() ^ shapes(template).items()))
        raise ConfigError(f"{operation['op']}: the new model has other arrays, for example {different[0]}")
    weights = frozen_as_evaluated(weights, averages, optimizer)
    changes = [WeightChange(shapes(before.weights), sources)]
    state, report = transfer_optimizer(before.optimizer, optimizer, changes, shapes(weights), averages, by_shape=False)
    return Grown(Training(after, weights, state), report.counts(), sources)
