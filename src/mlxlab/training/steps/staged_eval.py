"""Evaluates an optimizer step a few weights at a time, so that few temporary arrays exist at once."""

from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from mlxlab.training.optim.optimizers import flatten_arrays

CHUNK_ELEMENTS = 1 << 22  # of the weights that are evaluated together; a larger weight is a chunk of its own


def eval_in_chunks(model: nn.Module, optimizer: optim.Optimizer) -> None:
    """Evaluates the weights and the optimizer's state.

    In one call MLX would hold the old and new state of many weights and the temporary arrays between them.
    """
    weights = flatten_arrays(model.trainable_parameters())
    if sum(leaf.size for leaf in weights.values()) > CHUNK_ELEMENTS:
        states = _states_by_weight(flatten_arrays(optimizer.state), weights)
        for names in _chunks(weights):
            mx.eval([weights[name] for name in names], [leaf for name in names for leaf in states.get(name, [])])
    mx.eval(model.parameters(), optimizer.state)


def _chunks(weights: dict[str, mx.array]) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, leaf in weights.items():
        if names and size + leaf.size > CHUNK_ELEMENTS:
            yield names
            names, size = [], 0
        names.append(name)
        size += leaf.size
    yield names


def _states_by_weight(state: dict[str, mx.array], weights: dict[str, mx.array]) -> dict[str, list[mx.array]]:
    """The optimizer state of each weight: `states.0.<path>.m` belongs to `<path>`, so does `average.<path>`."""
    states: dict[str, list[mx.array]] = {}
    for name, leaf in state.items():
        keys = name.split(".")
        candidates = (".".join(keys[i:j]) for i in range(len(keys)) for j in (len(keys), len(keys) - 1))
        owner = next((path for path in candidates if path in weights), None)
        if owner is not None:
            states.setdefault(owner, []).append(leaf)
    return states
