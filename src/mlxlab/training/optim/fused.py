"""The optimizer step of AdamW in one native kernel, which reads and writes each weight and its moments once."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_unflatten

from mlxlab.backend.ops.native import kernels
from mlxlab.training.optim.optimizers import EMAOptimizer, Tree, assign_leaves, flatten_arrays


def apply_adamw(
    model: nn.Module, optimizer: optim.Optimizer, gradients: Tree, scale: mx.array, finite: mx.array
) -> bool:
    """Updates weights and optimizer if `finite` holds; False, and nothing changes, where the kernel does not apply.

    Args:
        gradients: float32, not yet multiplied by `scale`.
    """
    if isinstance(optimizer, EMAOptimizer):
        averaged: Tree = {name: optimizer.state[name] for name in ("average", "count")}
        before = flatten_arrays(averaged)
        if not apply_adamw(model, optimizer.optimizer, gradients, scale, finite):
            return False
        optimizer.add_to_average(model.trainable_parameters())
        after = flatten_arrays(averaged)
        assign_leaves(
            averaged, {name: mx.where(finite, leaf, before[name]) for name, leaf in after.items()}
        )
        return True
    parts = _adamw_parts(optimizer)
    weights = flatten_arrays(model.trainable_parameters())
    leaves = flatten_arrays(gradients)
    if not parts or not kernels.usable(*weights.values(), *leaves.values()):
        return False
    hyperparameters = _advance(parts, scale, finite)
    states = [flatten_arrays(part.state) for part in parts]
    owners = {path: index for index, state in enumerate(states) for path in state}
    groups = [owners[f"{path}.m"] for path in leaves]
    arrays = []
    for index, (path, gradient) in zip(groups, leaves.items(), strict=True):
        state = states[index]
        arrays.append((weights[path], gradient, state[f"{path}.m"], state[f"{path}.v"]))
    new = kernels.adamw(hyperparameters, arrays, groups, tuple(parts[0].betas), parts[0].eps)
    changed: list[tuple[str, mx.array]] = []
    for index, path, (weight, m, v) in zip(groups, leaves, new, strict=True):
        changed.append((path, weight))
        states[index] |= {f"{path}.m": m, f"{path}.v": v}
    model.update(tree_unflatten(changed))
    for part, state in zip(parts, states, strict=True):
        assign_leaves(part.state, state)
    return True


def _adamw_parts(optimizer: optim.Optimizer) -> list[Any]:
    """The optimizers of all groups, if each is AdamW with bias correction and the same constants; else none."""
    parts: list[Any] = (
        optimizer.optimizers if isinstance(optimizer, optim.MultiOptimizer) else [optimizer]
    )
    if any(
        type(part) is not optim.AdamW or not part.bias_correction or not part._initialized
        for part in parts
    ):
        return []
    constants = {(*part.betas, part.eps) for part in parts}
    return parts if len(constants) == 1 else []


def _advance(parts: list[Any], scale: mx.array, finite: mx.array) -> mx.array:
    """Advances learning rates and steps as `apply_gradients` does, if `finite` holds; the arguments of the kernel."""
    values: list[mx.array] = []
    for part in parts:
        for name, schedule in part._schedulers.items():
            part.state[name] = mx.where(finite, schedule(part.step), part.state[name])
        after = part.step + 1
        values += [part.learning_rate, after, mx.array(part.weight_decay)]
        part.state["step"] = mx.where(finite, after, part.step)
    return mx.stack([value.astype(mx.float32) for value in (*values, scale, finite)])
