"""Computes both halves of a batch at the same time on a CPU, where MLX runs everything but products on one core.

Each half has its own thread, stream, compiled gradient and BLAS thread. The sums are the same whether the halves are
computed in parallel or, while nothing is compiled, one after the other. Only for models without dropout: MLX's random
numbers belong to a thread, and the halves would draw other numbers than the full batch.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from queue import SimpleQueue
from threading import Thread
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_map

from mlxlab import backend
from mlxlab.errors import ConfigError
from mlxlab.models.layers import Attention
from mlxlab.ops.dropout import Dropout
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.optim.optimizers import Tree
from mlxlab.training.steps.compile import MAX_TRACES, CompileBudget, Shapes, on_linux_cpu, private_kernels, shapes_of
from mlxlab.training.steps.gradients import FunctionalGradient, LossGradient, restore_weights_after
from mlxlab.training.steps.microbatch import Sums

Streams = Literal["auto", "one", "two"]


def use_two_streams(streams: Streams, model: nn.Module, budget: CompileBudget, *, plain: bool) -> bool:
    """Whether a batch is computed in two halves.

    Args:
        streams: auto chooses two where that is faster (Linux without a GPU, two cores) and the model has no dropout.
        budget: auto needs a run that will be compiled.
        plain: the step computes in float32, stores all activations and runs in one process; auto needs this too.

    Raises:
        ConfigError: two streams for a model with dropout.
    """
    if streams == "two" and has_dropout(model):
        raise ConfigError("trainer.step.cpu_streams=two: expected a model without dropout; use auto")
    if streams != "auto":
        return streams == "two"
    compiles = budget.seconds < math.inf
    return compiles and plain and on_linux_cpu() and backend.blas_threads() > 1 and not has_dropout(model)


def has_dropout(model: nn.Module) -> bool:
    """Whether the forward pass in training draws random numbers."""
    return any(_draws(module) for module in model.modules())


def _draws(module: nn.Module) -> bool:
    if isinstance(module, nn.Dropout):
        return bool(module._p_1 < 1)
    if isinstance(module, Attention):
        return module.dropout > 0
    return isinstance(module, Dropout) and module.p > 0


class TwoStreamGradients:
    """The sums of a batch, as `OptimizedStep` computes them, from those of its halves.

    Args:
        compute: gradient as a function of weights and batch; may leave the weights in the model.
        budget: nothing is compiled before it is used up.
    """

    def __init__(self, model: nn.Module, compute: FunctionalGradient, budget: CompileBudget) -> None:
        self.model, self.compute, self.budget = model, compute, budget
        self.compiled_main: FunctionalGradient = mx.compile(compute)
        self.compiled_worker: FunctionalGradient = mx.compile(compute)
        self.traces: set[Shapes] = set()
        self.worker = _worker()

    def __call__(self, batch: DeviceBatch) -> Sums:
        """The sums of a batch of at least two rows."""
        half = len(batch.example_ids) // 2
        first, second = (tree_map(lambda x, i=i: x[i], batch) for i in (slice(0, half), slice(half, None)))
        mx.eval(first, second)
        shapes = shapes_of(batch)
        with backend.one_blas_thread(), restore_weights_after(self.model):
            if shapes in self.traces:
                return _add(*self._parallel(first, second))
            if self.budget.seconds <= 0 and len(self.traces) < MAX_TRACES:
                return _add(*self._trace(shapes, first, second))
            return _add(*self._sequential(first, second))

    def _sequential(self, first: DeviceBatch, second: DeviceBatch) -> tuple[LossGradient, LossGradient]:
        first_sums = _evaluate(self.compute, self.model.trainable_parameters(), first)
        return first_sums, _evaluate(self.compute, self.model.trainable_parameters(), second)

    def _parallel(self, first: DeviceBatch, second: DeviceBatch) -> tuple[LossGradient, LossGradient]:
        weights = self.model.trainable_parameters()
        self.worker.start(self.compiled_worker, weights, second)
        try:
            first_sums = _evaluate(self.compiled_main, weights, first)
        finally:
            second_sums = self.worker.wait()  # never leave while the worker is computing
        return first_sums, second_sums()

    def _trace(self, shapes: Shapes, first: DeviceBatch, second: DeviceBatch) -> tuple[LossGradient, LossGradient]:
        """One after the other: tracing puts placeholder weights into the model."""
        weights = self.model.trainable_parameters()
        try:
            with private_kernels():
                with restore_weights_after(self.model):
                    first_sums = _evaluate(self.compiled_main, weights, first)
                self.worker.start(self.compiled_worker, weights, second)
                second_sums = self.worker.wait()()
        except ValueError as error:
            self.budget.disable(error)
            return _evaluate(self.compute, weights, first), _evaluate(self.compute, weights, second)
        self.traces.add(shapes)
        return first_sums, second_sums


@cache
def _worker() -> "_StreamWorker":
    """The worker of the process."""
    return _StreamWorker()


class _StreamWorker:
    """A thread with its own stream. It never ends: MLX aborts the process when a thread that has a stream exits."""

    def __init__(self) -> None:
        self._requests: SimpleQueue[tuple[FunctionalGradient, Tree, DeviceBatch]] = SimpleQueue()
        self._results: SimpleQueue[Callable[[], LossGradient]] = SimpleQueue()
        Thread(target=self._work, daemon=True, name="second stream").start()

    def start(self, compute: FunctionalGradient, weights: Tree, batch: DeviceBatch) -> None:
        self._requests.put((compute, weights, batch))

    def wait(self) -> Callable[[], LossGradient]:
        """A function that returns the result, or raises the error of the computation."""
        return self._results.get()

    def _work(self) -> None:
        mx.set_default_stream(mx.new_stream(mx.cpu))
        while True:
            try:
                result = _evaluate(*self._requests.get())
                self._results.put(lambda result=result: result)  # type: ignore[misc]
                del result
            except BaseException as error:
                self._results.put(partial(_throw, error))


def _throw(error: BaseException) -> LossGradient:
    raise error


def _evaluate(compute: FunctionalGradient, weights: Tree, batch: DeviceBatch) -> LossGradient:
    """Evaluates in this thread: a lazy array belongs to the thread that made it."""
    result = compute(weights, batch)
    mx.eval(result)
    return result


def _add(first: LossGradient, second: LossGradient) -> Sums:
    ((loss, weight, rows), gradients), ((loss2, weight2, rows2), gradients2) = first, second
    summed = tree_map(lambda a, b: a + b, gradients, gradients2)
    per_example = {name: mx.concatenate([rows[name], rows2[name]]) for name in rows}
    return {"loss": loss + loss2, "weight": weight + weight2, "gradients": summed}, per_example
