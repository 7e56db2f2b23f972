"""Gradients of micro-batches, accumulated; their size is halved when memory runs out.

Losses and gradients of the micro-batches are summed: however a batch is split, its step is the same up to rounding.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlxlab.backend import is_out_of_memory
from mlxlab.backend.ops.dropout import random_key, save_random_state
from mlxlab.backend.ops.native import kernels
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.head_chunks import ChunkedLoss, HeadChunk
from mlxlab.training.losses.loss import LossFunction, ShardedLoss
from mlxlab.training.optim.optimizers import Tree
from mlxlab.training.steps.step import PerExample, StepInterrupted, Sums, Totals, weighted_sum

logger = logging.getLogger(__name__)

Gradient = Callable[[DeviceBatch, Tree], Sums]  # (batch, trainable weights)
# Takes a micro-batch, and adds its totals to those so far.
ComputeSums = Callable[[DeviceBatch, Totals | None], Sums]


@dataclass
class MicroBatcher:
    """Splits batches into micro-batches and sums their losses and gradients.

    Args:
        accumulate: number of micro-batches.
        retry_on_oom: after a failed allocation, try again with micro-batches of half the size.
        should_stop: asked before each micro-batch.
        max_tokens: rows times length of a micro-batch, after a failure.
    """

    accumulate: int
    retry_on_oom: bool
    should_stop: Callable[[], bool] = lambda: False
    max_tokens: int | None = None

    def micro_batch_rows(self, batch: DeviceBatch) -> int:
        """Rows of each micro-batch but the last; fewer where the batch is short, so that their number stays."""
        count, length = batch.tokens.shape
        rows = -(-count // self.accumulate)
        if self.max_tokens is None:
            return rows
        return min(rows, max(self.max_tokens // length, 1))

    def sum_gradients(
        self, batch: DeviceBatch, compute: ComputeSums, rows: int, *, lazy: bool
    ) -> Sums:
        """The totals over all targets, and the sums for each row, from micro-batches of `rows` rows.

        Args:
            lazy: leaves the last micro-batch to be evaluated by the caller, where no failed allocation is repeated.

        Raises:
            RuntimeError, MemoryError: an allocation failed, and there is no retry or one row is too many.
            StepInterrupted: `should_stop` was true.
        """
        restore_random_state = save_random_state()
        while True:
            try:
                return self._sum(split(batch, rows), compute, lazy=lazy and not self.retry_on_oom)
            except (RuntimeError, MemoryError) as error:
                if not self.retry_on_oom or rows == 1 or not is_out_of_memory(error):
                    raise
                rows = -(-rows // 2)
            self.max_tokens = rows * batch.tokens.shape[1]
            mx.clear_cache()
            restore_random_state()
            logger.warning(f"out of memory: repeating the step with micro-batches of {rows:,} rows")

    def _sum(self, micro_batches: list[DeviceBatch], compute: ComputeSums, *, lazy: bool) -> Sums:
        totals: Totals | None = None
        rows: list[PerExample] = []
        for index, micro_batch in enumerate(micro_batches, 1):
            if self.should_stop():
                raise StepInterrupted
            totals, per_example = compute(micro_batch, totals)
            # Evaluated one by one: a graph of all of them would hold all their activations.
            if not lazy or index < len(micro_batches):
                mx.eval(totals, per_example)
            rows.append(per_example)
        assert totals is not None
        return totals, {name: mx.concatenate([sums[name] for sums in rows]) for name in rows[0]}


def split(batch: DeviceBatch, rows: int) -> list[DeviceBatch]:
    """Consecutive micro-batches of `rows` rows; the last may be smaller."""
    starts = range(0, len(batch.example_ids), rows)
    return [
        tree_map(lambda array, start=start: array[start : start + rows], batch) for start in starts
    ]


def make_gradient_fn(
    model: nn.Module,
    loss: LossFunction,
    *,
    dtype: mx.Dtype,
    checkpointing: bool,
    head_chunk: HeadChunk,
    bfloat16_products: bool,
) -> Gradient:
    """The gradient as a function of a batch and the weights, both in float32.

    Leaves the weights in the model; `restore_weights_after` puts the previous ones back.

    Args:
        dtype: of the weights and activations while the loss is computed; the loss itself is float32.
        checkpointing: store only the input of each layer and recompute its activations in the backward pass.
        head_chunk: tokens whose logits are computed at once.
        bfloat16_products: native products round their inputs to bfloat16; activations stay in `dtype`.
    """
    if isinstance(loss, ShardedLoss):
        loss_function: LossFunction = replace(loss, loss=ChunkedLoss(loss.loss, head_chunk))
    else:
        loss_function = ChunkedLoss(loss, head_chunk)

    def narrow(leaf: mx.array) -> mx.array:
        if leaf.dtype == mx.float32:
            return leaf.astype(dtype)
        return leaf

    def total(weights: Tree, batch: DeviceBatch) -> tuple[mx.array, mx.array, PerExample]:
        if dtype != mx.float32:
            weights = tree_map(narrow, weights)
            model.update(tree_map(narrow, model.parameters()))  # frozen weights too
        model.update(weights)
        with activation_checkpointing(model, checkpointing):
            return weighted_sum(loss_function, model, batch)

    value_and_grad = mx.value_and_grad(total)

    def gradient(batch: DeviceBatch, weights: Tree) -> Sums:
        with kernels.bfloat16_products(bfloat16_products):
            (loss, weight, per_example), gradients = value_and_grad(weights, batch)
        return {"loss": loss, "weight": weight, "gradients": gradients}, per_example

    return gradient


@contextmanager
def restore_weights_after(model: nn.Module) -> Iterator[None]:
    """Puts the weights back afterwards; the model would otherwise hold copies, perhaps in bfloat16."""
    before = model.parameters()
    try:
        yield
    finally:
        model.update(before)


@contextmanager
def activation_checkpointing(model: nn.Module, enabled: bool) -> Iterator[None]:
    """Inside, if `enabled`, only the inputs of all `layers` are stored (Chen et al. 2016). Set the weights before."""
    if not enabled:
        yield
        return
    owners = [module for module in model.modules() if isinstance(module.get("layers"), list)]
    before = [module["layers"] for module in owners]
    for module, layers in zip(owners, before, strict=True):
        module["layers"] = [_checkpointed(layer) for layer in layers]
    try:
        yield
    finally:
        for module, layers in zip(owners, before, strict=True):
            module["layers"] = layers


def _checkpointed(layer: nn.Module) -> Callable[..., mx.array]:
    """The layer as a function (x, *inputs) -> array whose activations are not stored.

    MLX runs the function a second time for the gradient, and dropout must draw the same numbers then: the second pass
    starts from the random state of the first, and restores the state before it.
    """

    def call(x: mx.array, *inputs: object) -> mx.array:
        start = mx.array(random_key())
        first_pass = [True]

        def forward(weights: Tree, x: mx.array) -> mx.array:
            before = mx.array(random_key())
            random_key()[:] = start
            layer.update(weights)
            out = layer(x, *inputs)
            if not first_pass:
                random_key()[:] = before
            first_pass.clear()
            return out

        return mx.checkpoint(forward)(layer.trainable_parameters(), x)

    return call
