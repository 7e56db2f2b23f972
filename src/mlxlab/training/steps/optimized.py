"""A compiled step with gradient accumulation and low precision, otherwise equivalent to the plain step."""

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Literal, TypeVar

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map

from mlxlab.backend import on_linux_cpu
from mlxlab.backend.ops.native import state
from mlxlab.checkpoint.arrays import owner_of
from mlxlab.schema.constraints import Positive, Size
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.distributed.process_group import ProcessGroup
from mlxlab.training.head_chunks import computes_parts, with_target_index
from mlxlab.training.losses.loss import LogitLoss, LossFunction
from mlxlab.training.optim.optimizers import flatten_arrays
from mlxlab.training.state import StepResult
from mlxlab.training.steps.compile import CompileBudget, CompiledFunction, Mode
from mlxlab.training.steps.microbatch import MicroBatcher, make_gradient_fn, restore_weights_after
from mlxlab.training.steps.step import (
    PerExample,
    Sums,
    Totals,
    clipped_update,
    stack_scalars,
    step_result,
    sum_over_ranks,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Elements of the weights that are evaluated together; a larger weight is a chunk of its own.
CHUNK_ELEMENTS = 1 << 22


class OptimizedStep:
    """Forward pass, backward pass, clipping and optimizer step, with less memory and time than the plain step.

    Args:
        max_grad_norm: maximum global norm of the gradient; null does not clip. The norm is logged before clipping.
        accumulate: number of micro-batches, computed one after the other; the step is that of the full batch.
        activation_checkpointing: store only the input of each layer and recompute its activations: less memory, a
            third slower.
        head_chunk: tokens whose logits a language model computes at once, and again for the gradient. auto is all if
            their logits take at most 1 GB in float32, else as many as take 256 MB; null is all. Distillation, sums of
            losses and adapters of the head with dropout always compute all.
        dtype: of the forward and backward pass; weights, loss, norms and optimizer stay float32.
            On a Linux CPU only the products are in bfloat16, by native kernels; activations stay float32.
        allow_slow_dtype: use bfloat16 even where its products are slower than in float32: on a Linux CPU without
            instructions for them (AVX512-BF16), or without native kernels.
        compile: auto compiles where and once it pays, always at once, never not at all. Results are equal on a CPU.
        retry_on_oom: after a failed allocation, repeat the step with micro-batches of half the size.
    """

    def __init__(
        self,
        max_grad_norm: Positive | None,
        accumulate: Size,
        activation_checkpointing: bool,
        head_chunk: Size | Literal["auto"] | None,
        dtype: Literal["float32", "bfloat16"],
        allow_slow_dtype: bool,
        compile: Mode,
        retry_on_oom: bool,
        *,
        model: nn.Module,
        loss: LossFunction,
        optimizer: optim.Optimizer,
        group: ProcessGroup | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.group = group or ProcessGroup()
        self.max_grad_norm = max_grad_norm
        self.micro_batcher = MicroBatcher(accumulate, retry_on_oom)
        precision = choose_precision(dtype, allow_slow=allow_slow_dtype)
        self.gradient = make_gradient_fn(
            model,
            loss,
            dtype=mx.bfloat16 if precision == "bfloat16" else mx.float32,
            checkpointing=activation_checkpointing,
            head_chunk=head_chunk,
            bfloat16_products=precision == "bfloat16 products",
        )
        # Not with sharded weights (`ShardedLoss`): their processes must decide alike what they trace.
        self.selects_targets = isinstance(loss, LogitLoss) and computes_parts(model)
        self.budget = CompileBudget(compile, self.group)
        arrays: list[object] = [model.state, optimizer.state, mx.random.state]
        self.full_step = CompiledFunction(self._full_step, arrays, self.budget)
        self.first_sums = CompiledFunction(self._sums, arrays, self.budget)
        self.add_sums = CompiledFunction(self._sums, arrays, self.budget)
        self.apply_totals = CompiledFunction(self._apply_totals, arrays, self.budget)
        # One graph of checkpointing and the optimizer step would make MLX recompute all layers at once.
        self.one_graph = not (activation_checkpointing or retry_on_oom) and self.group.size == 1

    def interrupt_when(self, should_stop: Callable[[], bool]) -> None:
        """Raises StepInterrupted from now on between micro-batches once `should_stop` is true."""
        self.micro_batcher.should_stop = should_stop

    def __call__(self, batch: DeviceBatch) -> StepResult:
        rows = self.micro_batcher.micro_batch_rows(batch)
        if self.one_graph and rows >= len(batch.example_ids):
            batch = self._select_targets(batch)
            with self.budget.timed():
                scalars, per_example = self.full_step(batch)
                mx.eval(scalars, per_example, self.model.parameters(), self.optimizer.state)
        else:
            # The sum over the ranks overlaps the backward pass.
            lazy = self.group.size > 1 and not self.group.shards_weights
            totals, per_example = self.micro_batcher.sum_gradients(
                batch, self._micro_batch_sums, rows, lazy=lazy
            )
            totals, per_example = sum_over_ranks(self.group, totals, per_example)
            with self.budget.timed():
                norm, finite = self.apply_totals(totals)
                scalars = stack_scalars(totals, norm, finite, per_example)
                del totals  # frees the gradients before the weights are evaluated
                eval_in_chunks(self.model, self.optimizer)
                mx.eval(scalars, per_example)
        return step_result(scalars, per_example)

    def _full_step(self, batch: DeviceBatch) -> tuple[mx.array, PerExample]:
        """The step on a batch that is not split."""
        totals, per_example = self._sums(batch)
        norm, finite = self._apply_totals(totals)
        return stack_scalars(totals, norm, finite, per_example), per_example

    def _sums(self, batch: DeviceBatch, totals: Totals | None = None) -> Sums:
        """The totals of a micro-batch, added to `totals`, and the sums for each of its rows."""
        with restore_weights_after(self.model):
            new, rows = self.gradient(batch, self.model.trainable_parameters())
        if totals is not None:
            new = tree_map(lambda a, b: a + b, totals, new)
        return new, rows

    def _micro_batch_sums(self, batch: DeviceBatch, totals: Totals | None) -> Sums:
        """`_sums`, compiled."""
        batch = self._select_targets(batch)
        with self.budget.timed():
            if totals is None:
                sums = self.first_sums(batch)
            else:
                sums = self.add_sums(batch, totals)
            mx.eval(sums)
        return sums

    def _select_targets(self, batch: DeviceBatch) -> DeviceBatch:
        if self.selects_targets:
            return with_target_index(batch)
        return batch

    def _apply_totals(self, totals: Totals) -> tuple[mx.array, mx.array]:
        return clipped_update(self.model, self.optimizer, totals, self.max_grad_norm, self.group)


def choose_precision(
    dtype: Literal["float32", "bfloat16"], *, allow_slow: bool
) -> Literal["float32", "bfloat16", "bfloat16 products"]:
    """What a step computes in; warns where bfloat16 would be slower than float32 and is not used."""
    if dtype == "float32" or not on_linux_cpu():
        return dtype
    native = state.is_active()
    if native and (allow_slow or "bfloat16" in state.current().features):
        return "bfloat16 products"
    if allow_slow:
        return "bfloat16"
    reason = "its products bypass the BLAS"
    if native:
        reason = "this processor has no instructions for it"
    logger.warning(
        f"trainer.step.dtype=bfloat16: slower than float32 on this Linux CPU, {reason}; computing in float32"
        " (trainer.step.allow_slow_dtype=true overrides this)"
    )
    return "float32"


def eval_in_chunks(model: nn.Module, optimizer: optim.Optimizer) -> None:
    """Evaluates the weights and the optimizer's state, a few weights at a time.

    In one call MLX would hold the old and new state of many weights and the temporary arrays between them.
    """
    weights = flatten_arrays(model.trainable_parameters())
    if sum(leaf.size for leaf in weights.values()) > CHUNK_ELEMENTS:
        states = states_by_weight(flatten_arrays(optimizer.state), weights)
        chunk: list[mx.array] = []
        size = 0
        for name, leaf in weights.items():
            if size + leaf.size > CHUNK_ELEMENTS:
                mx.eval(chunk)
                chunk = []
                size = 0
            chunk += [leaf, *states.get(name, [])]
            size += leaf.size
    mx.eval(model.parameters(), optimizer.state)


def states_by_weight(state: Mapping[str, T], weights: Collection[str]) -> dict[str, list[T]]:
    """The optimizer state of each weight."""
    states: dict[str, list[T]] = {}
    for name, leaf in state.items():
        owner = owner_of(name, weights)
        if owner is not None:
            states.setdefault(owner, []).append(leaf)
    return states
