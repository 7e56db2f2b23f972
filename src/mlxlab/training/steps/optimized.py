"""The optimized step: compiled, in micro-batches, in low precision; the same update as the plain step."""

import logging
import sys
import time
from typing import Any, Literal

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
from mlxlab.training.steps.microbatch import MicroBatcher
from mlxlab.training.steps.staged_eval import eval_in_chunks
from mlxlab.training.steps.step import PerExample, StepOutput, clipped_update, stack_scalars
from mlxlab.training.steps.two_stream import Streams, TwoStreamGradients, two_streams

logger = logging.getLogger(__name__)

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16}


class OptimizedStep:
    """Forward, backward, clip, update, with less memory and time than the plain step.

    Losses and gradients of the micro-batches are summed, and divided once by their total weight: the number of
    micro-batches changes nothing but rounding.

    Args:
        max_grad_norm: maximum global norm of the gradient; null does not clip. The norm is logged before clipping.
        accumulate: number of micro-batches, computed one after the other; their step is that of the whole batch. auto
            measures before the first step how large they may be.
        activation_checkpointing: store only the input of each layer and recompute the rest: less memory, a third
            slower.
        dtype: of the forward and backward pass; weights, loss, norms and optimizer stay float32.
        allow_slow_dtype: use bfloat16 even where its products are slower than in float32 (Linux without a GPU).
        compile: auto compiles where and once it pays, always at once, never not at all. Results are equal on a CPU.
        cpu_streams: auto computes both halves of a batch at the same time where that is faster and the model has no
            dropout (Linux without a GPU, two cores); sums of halves round differently from those of the whole.
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
        # In one graph with the update, MLX would compute all layers again at once.
        self.parts = MicroBatcher(accumulate, separate_update=activation_checkpointing, retry_on_oom=retry_on_oom)
        self.model, self.optimizer = model, optimizer
        chosen = DTYPES[_usable(dtype, allow_slow_dtype)]
        self.gradient = make_gradient_fn(model, loss, dtype=chosen, checkpointing=activation_checkpointing)
        state = [model.state, optimizer.state, mx.random.state]
        self.patience = CompileBudget(compile)
        self.whole, self.part, self.further_part, self.finish = self.compiled = [
            CompiledFunction(function, state, self.patience)
            for function in (self._whole, self._part, self._further_part, self._finish)
        ]
        self.two: TwoStreamGradients | None = None
        plain = chosen == mx.float32 and not activation_checkpointing and self.group.size == 1
        if two_streams(cpu_streams, model, self.patience, plain=plain):
            compute = make_functional_gradient_fn(model, loss, dtype=chosen, checkpointing=activation_checkpointing)
            self.two = TwoStreamGradients(model, compute, self.patience)
            self.part, self.further_part = self._halves, self._further_halves  # type: ignore[assignment]

    def __call__(self, batch: DeviceBatch) -> StepOutput:
        start = time.monotonic()
        rows = self.parts.rows(batch, self._part)
        if (
            rows >= len(batch.example_ids)
            and self.group.size == 1
            and not self.parts.separate_update
            and self.two is None
        ):
            scalars, per_example = self.whole(batch)
        else:
            total, per_example = self.group.all_reduce_sum(
                *self.parts.accumulate(batch, self.part, self.further_part, rows)
            )
            norm, finite = self.finish(total)
            scalars = stack_scalars(total["loss"], total["weight"], norm, finite, per_example)
            del total  # frees the gradients before the weights are evaluated
            eval_in_chunks(self.model, self.optimizer)
        mx.eval(scalars, per_example, self.model.parameters(), self.optimizer.state)
        self.patience.spend(time.monotonic() - start)
        traces = [one.traces for one in self.compiled] + ([self.two.traces] if self.two else [])
        return StepOutput(scalars, per_example, sum(max(len(one) - 1, 0) for one in traces))

    def _whole(self, batch: DeviceBatch) -> tuple[mx.array, PerExample]:
        """The step on a batch that is not split."""
        total, per_example = self._part(batch)
        return stack_scalars(total["loss"], total["weight"], *self._finish(total), per_example), per_example

    def _part(self, batch: DeviceBatch) -> tuple[dict[str, Any], dict[str, mx.array]]:
        """Sums over the targets of one part (loss, weight, gradients), and over those of each row."""
        (loss, weight, rows), gradients = self.gradient(batch)
        return {"loss": loss, "weight": weight, "gradients": gradients}, rows

    def _further_part(self, total: dict[str, Any], batch: DeviceBatch) -> tuple[dict[str, Any], dict[str, mx.array]]:
        """The same, added to the sums of the parts before."""
        new, rows = self._part(batch)
        return tree_map(lambda a, b: a + b, total, new), rows

    def _halves(self, batch: DeviceBatch) -> tuple[dict[str, Any], dict[str, mx.array]]:
        """Sums of one part from its halves."""
        return self._part(batch) if self.two is None or len(batch.example_ids) < 2 else self.two(batch)

    def _further_halves(self, total: dict[str, Any], batch: DeviceBatch) -> tuple[dict[str, Any], dict[str, mx.array]]:
        new, rows = self._halves(batch)
        return tree_map(lambda a, b: a + b, total, new), rows

    def _finish(self, total: dict[str, Any]) -> tuple[mx.array, mx.array]:
        """The update by the sums of all micro-batches: (norm, finite)."""
        return clipped_update(
            self.model, self.optimizer, total["loss"], total["weight"], total["gradients"], self.max_grad_norm
        )


def _usable(dtype: str, forced: bool) -> str:
    """bfloat16 products bypass the BLAS on Linux CPU, and are some 15 times slower than those of float32."""
    if dtype == "float32" or forced or sys.platform != "linux" or mx.default_device() != mx.Device(mx.cpu):
        return dtype
    logger.warning(
        "trainer.step.dtype=bfloat16: slower than float32 on a Linux CPU, where its products bypass the BLAS;"
        " computing in float32 (trainer.step.allow_slow_dtype=true overrides this)"
    )
    return "float32"
