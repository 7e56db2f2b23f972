"""Computes both halves of a batch at the same time on a CPU, where MLX runs everything but products on one core.

Each half has its own thread, stream, compiled gradient and BLAS thread. Only for models without dropout: MLX's random
numbers belong to a thread, and the halves would draw other numbers than the full batch.
"""

from collections.abc import Callable
from concurrent.futures import Future, wait
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
from mlxlab.ops.native import state
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.optim.optimizers import Tree
from mlxlab.training.steps.compile import CompileBudget, CompiledFunction, shapes_of
from mlxlab.training.steps.microbatch import Gradient, restore_weights_after
from mlxlab.training.steps.step import Sums

Streams = Literal["auto", "one", "two"]


def use_two_streams(streams: Streams, model: nn.Module, *, eligible: bool) -> bool:
    """True if a batch is computed in two halves; raises ConfigError if they are demanded for a model with dropout.

    Args:
        eligible: the step is compiled, computes in float32, stores all activations and runs in one process; auto
            needs all of it.
    """
    if streams == "two" and has_dropout(model):
        raise ConfigError(
            "trainer.step.cpu_streams=two: expected a model without dropout; use auto"
        )
    if streams != "auto":
        return streams == "two"
    return (
        eligible
        and not state.is_active()
        and backend.on_linux_cpu()
        and backend.blas_threads() > 1
        and not has_dropout(model)
    )


def has_dropout(model: nn.Module) -> bool:
    """True if the forward pass in training draws random numbers."""
    return any(
        (isinstance(module, Dropout) and module.p > 0)
        or (isinstance(module, nn.Dropout) and module._p_1 < 1)
        or (isinstance(module, Attention) and module.dropout > 0)
        for module in model.modules()
    )


class TwoStreamGradients:
    """The sums of a batch of at least two rows, from those of its halves; `prepare` is applied to each of these."""

    def __init__(
        self,
        model: nn.Module,
        gradient: Gradient,
        budget: CompileBudget,
        prepare: Callable[[DeviceBatch], DeviceBatch] = lambda batch: batch,
    ) -> None:
        self.model, self.budget, self.prepare = model, budget, prepare
        self.first_half, self.second_half = (
            CompiledFunction(gradient, [], budget) for _ in range(2)
        )

    def __call__(self, batch: DeviceBatch) -> Sums:
        half = len(batch.example_ids) // 2
        halves = (
            tree_map(lambda x, rows=rows: x[rows], batch)
            for rows in (slice(half), slice(half, None))
        )
        first, second = map(self.prepare, halves)
        mx.eval(first, second)
        # Whatever is not a known trace puts its weights into the model: then one half after the other.
        parallel = (
            shapes_of(first) in self.first_half.traces
            and shapes_of(second) in self.second_half.traces
        )
        with backend.one_blas_thread(), restore_weights_after(self.model):
            weights = self.model.trainable_parameters()
            pending: Future[Sums] = Future()
            _second_thread().put(
                (pending, partial(self._evaluate, self.second_half, second, weights))
            )
            if not parallel:
                wait([pending])
            try:
                totals, rows = self._evaluate(self.first_half, first, weights)
            finally:
                wait([pending])  # never leave while the thread is computing
        totals2, rows2 = pending.result()
        summed = tree_map(lambda a, b: a + b, totals, totals2)
        return summed, {name: mx.concatenate([rows[name], rows2[name]]) for name in rows}

    def _evaluate(self, gradient: Gradient, batch: DeviceBatch, weights: Tree) -> Sums:
        """Evaluates in this thread: a lazy array belongs to the thread that made it."""
        with self.budget.timed():
            sums = gradient(batch, weights)
            mx.eval(sums)
        return sums


Request = tuple[Future[Sums], Callable[[], Sums]]


@cache
def _second_thread() -> SimpleQueue[Request]:
    """The queue of a thread with its own stream, one in a process.

    It never ends: MLX aborts the process when a thread that has a stream exits.
    """
    requests: SimpleQueue[Request] = SimpleQueue()

    def work() -> None:
        mx.set_default_stream(mx.new_stream(mx.cpu))
        while True:
            pending, compute = requests.get()
            try:
                pending.set_result(compute())
            except BaseException as error:
                pending.set_exception(error)
            del pending, compute  # holds no gradients while it waits for the next batch

    Thread(target=work, daemon=True, name="second stream").start()
    return requests
