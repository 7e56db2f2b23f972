"""Steps: one batch becomes one optimizer step, of AdamW in one native kernel."""

from typing import Any, Protocol, TypedDict

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map, tree_unflatten

from mlxlab.backend.ops.native import kernels
from mlxlab.schema.constraints import Positive
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.distributed.process_group import ProcessGroup
from mlxlab.training.losses.loss import LossFunction
from mlxlab.training.optim.optimizers import EMAOptimizer, Tree, assign_leaves, flatten_arrays
from mlxlab.training.state import StepResult

PerExample = dict[str, mx.array]  # name -> (B,) sums over the targets of each row


class Totals(TypedDict):
    """Sums over all targets of a batch; the gradients are float32."""

    loss: mx.array
    weight: mx.array
    gradients: Tree


Sums = tuple[Totals, PerExample]


class StepInterrupted(Exception):
    """A signal ended a step between two micro-batches; weights and optimizer are those before it."""


class Step(Protocol):
    """Takes one optimizer step on a batch. Loss and gradients are summed over all targets and all ranks, and divided
    once by their weight. A step whose loss or gradient is not finite leaves weights and optimizer unchanged."""

    def __call__(self, batch: DeviceBatch) -> StepResult: ...


class PlainStep:
    """Forward pass, backward pass, clipping, optimizer step.

    Args:
        max_grad_norm: maximum global norm of the gradient; null does not clip. The norm is logged before clipping.
    """

    def __init__(
        self,
        max_grad_norm: Positive | None,
        *,
        model: nn.Module,
        loss: LossFunction,
        optimizer: optim.Optimizer,
        group: ProcessGroup | None = None,
    ) -> None:
        self.max_grad_norm = max_grad_norm
        self.group = group or ProcessGroup()
        self.model = model
        self.optimizer = optimizer
        self.gradient = nn.value_and_grad(model, lambda batch: weighted_sum(loss, model, batch))

    def __call__(self, batch: DeviceBatch) -> StepResult:
        (loss, weight, per_example), gradients = self.gradient(batch)
        totals: Totals = {"loss": loss, "weight": weight, "gradients": gradients}
        totals, per_example = sum_over_ranks(self.group, totals, per_example)
        norm, finite = clipped_update(
            self.model, self.optimizer, totals, self.max_grad_norm, self.group
        )
        scalars = stack_scalars(totals, norm, finite, per_example)
        mx.eval(scalars, per_example, self.model.parameters(), self.optimizer.state)
        return step_result(scalars, per_example)


def weighted_sum(
    loss: LossFunction, model: nn.Module, batch: DeviceBatch
) -> tuple[mx.array, mx.array, PerExample]:
    """The sum of the loss over all targets, the weight to divide it by, and the sums for each row."""
    weights = batch.loss_weights
    rows = len(batch.loss_weights)
    total, terms = loss(model, batch)
    # A target of weight 0 may have any loss, NaN too: it must not reach the sum.
    sums = {
        name: mx.where(weights > 0, values * weights, 0).reshape(rows, -1).sum(axis=1)
        for name, values in {"loss": total, **terms}.items()
    }
    sums["weight"] = weights.reshape(rows, -1).sum(axis=1)
    # MLX cannot compile a function of which two outputs are computed alike, as a loss and its only term.
    stacked = mx.stack(list(sums.values()))  # (K, B)
    return (
        sums["loss"].sum(),
        weights.sum(),
        {name: stacked[index] for index, name in enumerate(sums)},
    )


def sum_over_ranks(group: ProcessGroup, totals: Totals, per_example: PerExample) -> Sums:
    """The totals of the batch of all ranks; gradients of shards are summed already."""
    if not group.shards_weights:
        return group.all_reduce_sum(totals, per_example)
    mx.eval(totals, per_example)
    (loss, weight), per_example = group.all_reduce_sum(
        (totals["loss"], totals["weight"]), per_example
    )
    return {"loss": loss, "weight": weight, "gradients": totals["gradients"]}, per_example


def clipped_update(
    model: nn.Module,
    optimizer: optim.Optimizer,
    totals: Totals,
    max_norm: float | None,
    group: ProcessGroup,
) -> tuple[mx.array, mx.array]:
    """Applies the gradients, divided by the weight and clipped, if they and the loss are finite; (norm, finite)."""
    scale = 1 / mx.maximum(totals["weight"], 1e-9)
    norm = scale * group.norm_over_shards(global_norm(totals["gradients"]))
    if max_norm is not None:
        scale = scale * mx.minimum(max_norm / (norm + 1e-12), 1.0)
    finite = mx.isfinite(totals["loss"]) & mx.isfinite(norm)
    if not apply_adamw(model, optimizer, totals["gradients"], scale, finite):
        apply_if_finite(
            finite, model, optimizer, tree_map(lambda g: g * scale, totals["gradients"])
        )
    return norm, finite


def global_norm(tree: Tree) -> mx.array:
    leaves = list(flatten_arrays(tree).values())
    if kernels.usable(*leaves):
        return mx.sqrt(kernels.square_sum(leaves))
    squares = [mx.square(leaf.astype(mx.float32)).sum() for leaf in leaves]
    return mx.sqrt(sum(squares, mx.array(0.0)))


def apply_if_finite(
    condition: mx.array, model: nn.Module, optimizer: optim.Optimizer, gradients: Tree
) -> None:
    """Updates weights and optimizer if `condition` holds: decided on the device, without waiting for it."""
    before = model.trainable_parameters()
    state = flatten_arrays(optimizer.state)
    model.update(optimizer.apply_gradients(gradients, before))
    model.update(
        tree_map(
            lambda new, old: mx.where(condition, new, old), model.trainable_parameters(), before
        )
    )
    new_state = flatten_arrays(optimizer.state)
    assign_leaves(
        optimizer.state,
        {
            name: mx.where(condition, leaf, state.get(name, leaf))
            for name, leaf in new_state.items()
        },
    )


def stack_scalars(
    totals: Totals, norm: mx.array, finite: mx.array, per_example: PerExample
) -> mx.array:
    """All numbers of a step, and the K terms of the loss: (4 + K,) float32, so that the host waits for them once."""
    terms = [per_example[name].sum() for name in term_names(per_example)]
    return mx.stack(
        [
            value.astype(mx.float32)
            for value in (totals["loss"], totals["weight"], norm, finite, *terms)
        ]
    )


def step_result(scalars: mx.array, per_example: PerExample) -> StepResult:
    """Reads what `stack_scalars` has made."""
    loss, weight, grad_norm, finite, *terms = np.array(scalars, np.float64).tolist()
    named = dict(zip(term_names(per_example), terms, strict=True))
    return StepResult(loss, weight, grad_norm, finite > 0, named, per_example)


def term_names(per_example: PerExample) -> list[str]:
    return sorted(per_example.keys() - {"loss", "weight"})


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
    parts: list[Any] = [optimizer]
    if isinstance(optimizer, optim.MultiOptimizer):
        parts = optimizer.optimizers
    if any(
        type(part) is not optim.AdamW or not part.bias_correction or not part._initialized
        for part in parts
    ):
        return []
    constants = {(*part.betas, part.eps) for part in parts}
    if len(constants) > 1:
        return []
    return parts


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
