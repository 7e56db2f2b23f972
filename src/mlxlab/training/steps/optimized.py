"""A compiled step with gradient accumulation and low precision, otherwise equivalent to the plain step."""

import logging
import sys
import time
from collections.abc import Callable
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map

from mlxlab.constraints import Positive, Size
from mlxlab.distributed.process_group import ProcessGroup, SingleProcess
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.loss import Loss
from mlxlab.training.steps.compile import CompileBudget, CompiledFunction, Mode
from mlxlab.training.steps.gradients import make_functional_gradient_fn, make_gradient_fn
from mlxlab.training.steps.microbatch import MicroBatcher, Sums, Totals
from mlxlab.training.steps.staged_eval import eval_in_chunks
from mlxlab.training.steps.step import PerExample, StepOutput, clipped_update, stack_scalars
from mlxlab.training.steps.two_stream import Streams, TwoStreamGradients, use_two_streams

logger = logging.getLogger(__name__)

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16}


class OptimizedStep:
    """Forward pass, backward pass, clipping and optimizer step, with less memory and time than the plain step.

    Losses and gradients of the micro-batches are summed, and divided once by their total weight: the number of
    micro-batches changes nothing but rounding.

    Args:
        max_grad_norm: maximum global norm of the gradient; null does not clip. The norm is logged before clipping.
        accumulate: number of micro-batches, computed one after the other; the step is that of the full batch. auto
            measures before the first step how large they may be.
        activation_checkpointing: store only the input of each layer and recompute its activations: less memory, a
            third slower.
        dtype: of the forward and backward pass; weights, loss, norms and optimizer stay float32.
        allow_slow_dtype: use bfloat16 even where its products are slower than in float32 (Linux without a GPU).
        compile: auto compiles where and once it pays, always at once, never not at all. Results are equal on a CPU.
        cpu_streams: auto computes both halves of a batch at the same time where that is faster and the model has no
            dropout (Linux without a GPU, two cores); sums of halves round differently from those of the full batch.
        retry_on_oom: after a failed allocation, repeat the step with micro-batches of half the size.
    """

    def __init__(
        self,
        max_grad_norm: Positive | None,
        accumulate: Size | Literal["auto"],
        activation_checkpointing: bool,
        dtype: Literal["float32", "bfloat16"],
        allow_slow_dtype: bool,
        compile: Mode,
        cpu_streams: Streams,
        retry_on_oom: bool,
        *,
        model: nn.Module,
        loss: Loss,
        optimizer: optim.Optimizer,
        group: ProcessGroup | None = None,
    ) -> None:
        self.group = group or SingleProcess()
        self.max_grad_norm = max_grad_norm
        # In one graph with the optimizer step, MLX would recompute all layers at once.
        self.micro_batcher = MicroBatcher(
            accumulate, separate_optimizer_step=activation_checkpointing, retry_on_oom=retry_on_oom
        )
        self.model, self.optimizer = model, optimizer
        compute_dtype = DTYPES[_usable_dtype(dtype, allow_slow_dtype)]
        self.gradient = make_gradient_fn(model, loss, dtype=compute_dtype, checkpointing=activation_checkpointing)
        state: list[object] = [model.state, optimizer.state, mx.random.state]
        self.budget = CompileBudget(compile)
        self.full_step = CompiledFunction(self._full_step, state, self.budget)
        self.apply_totals = CompiledFunction(self._apply_totals, state, self.budget)
        first, add = (CompiledFunction(f, state, self.budget) for f in (self._sums, self._add_sums))
        self.compiled = (self.full_step, first, add, self.apply_totals)
        self.sums: Callable[[DeviceBatch], Sums] = first
        self.add_sums: Callable[[Totals, DeviceBatch], Sums] = add
        self.two_stream: TwoStreamGradients | None = None
        plain = compute_dtype == mx.float32 and not activation_checkpointing and self.group.size == 1
        if use_two_streams(cpu_streams, model, self.budget, plain=plain):
            compute = make_functional_gradient_fn(
                model, loss, dtype=compute_dtype, checkpointing=activation_checkpointing
            )
            self.two_stream = TwoStreamGradients(model, compute, self.budget)
            self.sums, self.add_sums = self._two_stream_sums, self._add_two_stream_sums

    def __call__(self, batch: DeviceBatch) -> StepOutput:
        start = time.monotonic()
        rows = self.micro_batcher.micro_batch_rows(batch, self._sums)
        if self._fits_one_graph(batch, rows):
            scalars, per_example = self.full_step(batch)
        else:
            totals, per_example = self.group.all_reduce_sum(
                *self.micro_batcher.sum_gradients(batch, self.sums, self.add_sums, rows)
            )
            norm, finite = self.apply_totals(totals)
            scalars = stack_scalars(totals["loss"], totals["weight"], norm, finite, per_example)
            del totals  # frees the gradients before the weights are evaluated
            eval_in_chunks(self.model, self.optimizer)
        mx.eval(scalars, per_example, self.model.parameters(), self.optimizer.state)
        self.budget.consume(time.monotonic() - start)
        traces = [function.traces for function in self.compiled]
        traces += [self.two_stream.traces] if self.two_stream else []
        return StepOutput(scalars, per_example, sum(max(len(shapes) - 1, 0) for shapes in traces))

    def _fits_one_graph(self, batch: DeviceBatch, rows: int) -> bool:
        """Whether gradient and optimizer step are computed in one graph."""
        separate = self.micro_batcher.separate_optimizer_step or self.two_stream is not None
        return rows >= len(batch.example_ids) and self.group.size == 1 and not separate

    def _full_step(self, batch: DeviceBatch) -> tuple[mx.array, PerExample]:
        """The step on a batch that is not split."""
        totals, per_example = self._sums(batch)
        norm, finite = self._apply_totals(totals)
        return stack_scalars(totals["loss"], totals["weight"], norm, finite, per_example), per_example

    def _sums(self, batch: DeviceBatch) -> Sums:
        """The totals of one micro-batch, and the sums for each of its rows."""
        (loss, weight, rows), gradients = self.gradient(batch)
        return {"loss": loss, "weight": weight, "gradients": gradients}, rows

    def _add_sums(self, totals: Totals, batch: DeviceBatch) -> Sums:
        """`totals` plus those of a further micro-batch, and the sums for each of its rows."""
        new, rows = self._sums(batch)
        return tree_map(lambda a, b: a + b, totals, new), rows

    def _two_stream_sums(self, batch: DeviceBatch) -> Sums:
        return self._sums(batch) if self.two_stream is None or len(batch.example_ids) < 2 else self.two_stream(batch)

    def _add_two_stream_sums(self, totals: Totals, batch: DeviceBatch) -> Sums:
        new, rows = self._two_stream_sums(batch)
        return tree_map(lambda a, b: a + b, totals, new), rows

    def _apply_totals(self, totals: Totals) -> tuple[mx.array, mx.array]:
        """Takes the optimizer step; (gradient norm, finite)."""
        return clipped_update(
            self.model, self.optimizer, totals["loss"], totals["weight"], totals["gradients"], self.max_grad_norm
        )


def _usable_dtype(dtype: str, forced: bool) -> str:
    """bfloat16 products bypass the BLAS on a Linux CPU, and are about 15 times slower than those of float32."""
    if dtype == "float32" or forced or sys.platform != "linux" or mx.default_device() != mx.Device(mx.cpu):
        return dtype
    logger.warning(
        "trainer.step.dtype=bfloat16: slower than float32 on a Linux CPU, where its products bypass the BLAS;"
        " computing in float32 (trainer.step.allow_slow_dtype=true overrides this)"
    )
    return "float32"
