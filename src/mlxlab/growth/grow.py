"""Applies an operation to a model in training: its weights, their average, and the optimizer state."""

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx

from mlxlab.errors import ConfigError
from mlxlab.growth.arrays import Arrays
from mlxlab.growth.operations import CHANGES
from mlxlab.growth.optimizer_state import AVERAGE, Shapes, TransferCounts, transfer_state
from mlxlab.growth.schema import ArchitectureOperation
from mlxlab.models.build import Architecture


class Training(NamedTuple):
    """A model in training by its arrays: all weights by path, and the optimizer state by path."""

    architecture: Architecture
    weights: Arrays
    optimizer: Arrays


def grow(
    operation: ArchitectureOperation,
    before: Training,
    new_state: Callable[[Architecture], tuple[Arrays, Arrays]],
    seed: int,
) -> tuple[Training, TransferCounts]:
    """The training after the operation.

    Args:
        new_state: weights and optimizer state of a new model of an architecture, for their names and shapes.
        seed: of what is drawn.

    Raises:
        ConfigError: the operation does not fit the model.
    """
    change: Any = CHANGES[operation["op"]]
    after = change.node(operation, before.architecture)
    weights, sources = change.arrays(operation, before.architecture, before.weights, seed)
    average = {path.removeprefix(AVERAGE): leaf for path, leaf in before.optimizer.items() if path.startswith(AVERAGE)}
    averaged = change.arrays(operation, before.architecture, before.weights | average, seed)[0] if average else {}
    template, optimizer = new_state(after)
    if shapes(weights) != shapes(template):
        different = sorted(dict(shapes(weights).items() ^ shapes(template).items()))
        raise ConfigError(f"{operation['op']}: the new model has other arrays, for example {different[0]}")
    state, counts = transfer_state(
        before.optimizer, optimizer, sources, shapes(before.weights), shapes(weights), averaged
    )
    mx.eval(weights, state)
    return Training(after, weights, state), counts


def shapes(arrays: Arrays) -> Shapes:
    return {path: array.shape for path, array in arrays.items()}
