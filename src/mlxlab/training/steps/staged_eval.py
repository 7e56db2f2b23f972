"""Evaluates an update a few weights at a time: what one of them needs on the way is gone before the next is made."""

from collections.abc import Iterator

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from mlxlab.training.optim.optimizers import flatten_arrays

AT_ONCE = 1 << 22  # numbers, of weights that are evaluated together: few small ones, or one large one


def eval_in_chunks(model: nn.Module, optimizer: optim.Optimizer) -> None:
    """Evaluates the weights and the optimizer's state.

    All at once MLX would hold the old and new state of many weights, and what lies between them.
    """
    weights = flatten_arrays(model.trainable_parameters())
    if sum(leaf.size for leaf in weights.values()) > AT_ONCE:
        owners = _owners(flatten_arrays(optimizer.state), weights)
        for names in _groups(weights):
            mx.eval([weights[name] for name in names], [leaf for name in names for leaf in owners.get(name, [])])
    mx.eval(model.parameters(), optimizer.state)


def _groups(weights: dict[str, mx.array]) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for name, leaf in weights.items():
        if names and size + leaf.size > AT_ONCE:
            yield names
            names, size = [], 0
        names.append(name)
        size += leaf.size
    yield names


def _owners(state: dict[str, mx.array], weights: dict[str, mx.array]) -> dict[str, list[mx.array]]:
    """By weight, its part of the state: `states.0.<path>.m` belongs to `<path>`, so does `average.<path>`."""
    found: dict[str, list[mx.array]] = {}
    for name, leaf in state.items():
        words = name.split(".")
        inside = (".".join(words[i:j]) for i in range(len(words)) for j in (len(words), len(words) - 1))
        owner = next((path for path in inside if path in weights), None)
        if owner is not None:
            found.setdefault(owner, []).append(leaf)
    return found
