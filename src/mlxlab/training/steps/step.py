"""Steps: one batch becomes one optimizer update."""

from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map

from mlxlab.constraints import Positive
from mlxlab.distributed.process_group import ProcessGroup, SingleProcess
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.loss import Loss
from mlxlab.training.optim.optimizers import assign_leaves, flatten_arrays


class Step(Protocol):
    """Returns `loss` (sum over targets), `weight`, `norm` (before clipping), `skipped` (0 or 1), and `rows`."""

    def __call__(self, batch: DeviceBatch) -> dict[str, Any]: ...


class PlainStep:
    """Forward, backward, clip, update. A non-finite loss or gradient leaves weights and optimizer as they were.

    Args:
        clip: greatest global norm of the gradient; null does not clip. The norm is logged before clipping.
    """

    def __init__(
        self,
        clip: Positive | None,
        *,
        model: nn.Module,
        loss: Loss,
        optimizer: optim.Optimizer,
        group: ProcessGroup | None = None,
    ) -> None:
        self.clip = clip
        self.group = group or SingleProcess()
        self.model = model
        self.optimizer = optimizer
        self.gradient = nn.value_and_grad(model, lambda batch: weighted_sum(loss, model, batch))

    def __call__(self, batch: DeviceBatch) -> dict[str, Any]:
        (total, weight, rows), gradients = self.gradient(batch)
        (total, weight, gradients), rows = self.group.sum((total, weight, gradients), rows)
        scale = 1 / mx.maximum(weight, 1e-9)
        norm = scale * global_norm(gradients)
        if self.clip is not None:
            scale = scale * mx.minimum(self.clip / (norm + 1e-12), 1.0)
        finite = mx.isfinite(total) & mx.isfinite(norm)
        apply_if_finite(finite, self.model, self.optimizer, tree_map(lambda g: g * scale, gradients))
        mx.eval(total, weight, rows, norm, finite, self.model.parameters(), self.optimizer.state)
        return {"loss": total, "weight": weight, "rows": rows, "norm": norm, "skipped": 1 - finite.astype(mx.int32)}


Rows = dict[str, mx.array]  # by name (B,): the sum over the targets of each row


def weighted_sum(loss: Loss, model: nn.Module, batch: DeviceBatch) -> tuple[mx.array, mx.array, Rows]:
    """The sum of the loss over all targets, the weight to divide it by, and sums by row: loss, weight, each part."""
    total, terms = loss(model, batch)
    rows = {name: _row_sums(values, batch.weights) for name, values in {"loss": total, **terms}.items()}
    weights = batch.weights.reshape(len(batch.weights), -1).sum(axis=1)
    return rows["loss"].sum(), batch.weights.sum(), rows | {"weight": weights}


def _row_sums(values: mx.array, weights: mx.array) -> mx.array:
    # A target of weight 0 may have any loss, NaN too: it must not reach the sum.
    return mx.where(weights > 0, values * weights, 0).reshape(len(values), -1).sum(axis=1)


def global_norm(tree: dict) -> mx.array:
    return mx.sqrt(
        sum((mx.square(leaf.astype(mx.float32)).sum() for leaf in flatten_arrays(tree).values()), mx.array(0.0))
    )


def apply_if_finite(condition: mx.array, model: nn.Module, optimizer: optim.Optimizer, gradients: dict) -> None:
    """One optimizer update where `condition` holds, else nothing: decided on the device, without waiting for it."""
    before = model.trainable_parameters()
    state = flatten_arrays(optimizer.state)
    model.update(optimizer.apply_gradients(gradients, before))
    after = model.trainable_parameters()
    model.update(tree_map(lambda new, old: mx.where(condition, new, old), after, before))
    kept = {
        name: mx.where(condition, leaf, state.get(name, leaf)) for name, leaf in flatten_arrays(optimizer.state).items()
    }
    assign_leaves(optimizer.state, kept)
