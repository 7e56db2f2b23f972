"""Two halves of a batch at once, for a CPU: there MLX computes all but products on one core.

Each half has a thread, a stream and a compiled gradient of its own, and one thread of the BLAS. Sums are the same
whether the halves are computed at once or, while nothing is compiled, one after the other. Only for models without
dropout: MLX's random numbers belong to a thread, and the halves would draw others than the whole.
"""

import math
import sys
from collections.abc import Callable
from functools import cache, partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map

from mlxlab import backend
from mlxlab.errors import ConfigError
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.steps.compile import MOST_TRACES, CompileBudget, on_linux_cpu, private_kernels
from mlxlab.training.steps.gradients import restore_weights_after

Sums = tuple[dict[str, Any], dict[str, mx.array]]
Streams = Literal["auto", "one", "two"]


def two_streams(expected: Streams, model: nn.Module, patience: CompileBudget, *, plain: bool) -> bool:
    """Whether a batch is computed in two halves.

    Args:
        expected: auto says yes where that is faster (Linux without a GPU, two cores) and changes no draws.
        plain: float32, all activations kept, one process.

    Raises:
        ConfigError: two are expected of a model with dropout.
    """
    if expected == "two" and has_dropout(model):
        raise ConfigError(
            "trainer.step.cpu_streams=two: the model has dropout, whose draws the halves do not share; use auto"
        )
    if expected != "auto":
        return expected == "two"
    compiles = patience.seconds < math.inf
    return compiles and plain and on_linux_cpu() and backend.blas_threads() > 1 and not has_dropout(model)


def has_dropout(model: nn.Module) -> bool:
    """Whether training draws random numbers."""
    return any(_draws(module) for module in model.modules())


def _draws(module: nn.Module) -> bool:
    if isinstance(module, nn.Dropout):
        return bool(module._p_1 < 1)
    return bool(getattr(module, "p", 0) or getattr(module, "drops", 0))


class TwoStreamGradients:
    """The sums of a batch as `OptimizedStep.part` has them, from those of its halves.

    Args:
        compute: (weights, batch) -> (sums, gradients); may leave the weights in the model.
        patience: while there is some left, nothing is compiled.
    """

    def __init__(self, model: nn.Module, compute: Callable[..., Any], patience: CompileBudget) -> None:
        self.model, self.compute, self.patience = model, compute, patience
        self.here, self.there = mx.compile(compute), mx.compile(compute)
        self.traces: set[Any] = set()
        self.other = _other()

    def __call__(self, batch: DeviceBatch) -> Sums:
        """Of at least two rows."""
        half = len(batch.example_ids) // 2
        first, second = (tree_map(lambda x, i=i: x[i], batch) for i in (slice(0, half), slice(half, None)))
        mx.eval(first, second)
        leaves: list[tuple[str, Any]] = tree_flatten(batch)  # type: ignore[assignment]
        shapes = tuple((leaf.shape, leaf.dtype) for _, leaf in leaves)
        with backend.one_blas_thread(), restore_weights_after(self.model):
            if shapes in self.traces:
                return _joined(*self._at_once(first, second))
            if self.patience.seconds <= 0 and len(self.traces) < MOST_TRACES:
                return _joined(*self._trace(shapes, first, second))
            return _joined(*(_evaluated(self.compute, self._weights(), part) for part in (first, second)))

    def _weights(self) -> dict:
        return self.model.trainable_parameters()

    def _at_once(self, first: DeviceBatch, second: DeviceBatch) -> tuple[Any, Any]:
        weights = self._weights()
        self.other.start(self.there, weights, second)
        try:
            ours = _evaluated(self.here, weights, first)
        finally:
            theirs = self.other.wait()  # never leave while the other half is at work
        return ours, theirs()

    def _trace(self, shapes: tuple, first: DeviceBatch, second: DeviceBatch) -> tuple[Any, Any]:
        """One after the other: a trace puts its own weights into the model."""
        weights = self._weights()
        try:
            with private_kernels():
                with restore_weights_after(self.model):
                    ours = _evaluated(self.here, weights, first)
                self.other.start(self.there, weights, second)
                theirs = self.other.wait()()
        except ValueError as error:
            if "transformation" not in str(error):
                raise
            self.patience.seconds = math.inf
            print("trainer.step.compile: this loss looks at its numbers as it goes; not compiled", file=sys.stderr)
            return _evaluated(self.compute, weights, first), _evaluated(self.compute, weights, second)
        self.traces.add(shapes)
        return ours, theirs


@cache
def _other() -> "_StreamWorker":
    """One for the whole process."""
    return _StreamWorker()


class _StreamWorker:
    """A thread with a stream of its own, which never ends: MLX aborts the process when a thread with a stream does."""

    def __init__(self) -> None:
        self.given: SimpleQueue[tuple] = SimpleQueue()
        self.done: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        Thread(target=self._work, daemon=True, name="second stream").start()

    def start(self, *arguments: Any) -> None:
        self.given.put(arguments)

    def wait(self) -> Callable[[], Any]:
        """What gives the result, or raises what went wrong."""
        return self.done.get()

    def _work(self) -> None:
        mx.set_default_stream(mx.new_stream(mx.cpu))
        while True:
            try:
                out = _evaluated(*self.given.get())
                self.done.put(lambda out=out: out)  # type: ignore[misc]
                del out
            except BaseException as error:
                self.done.put(partial(_throw, error))


def _throw(error: BaseException) -> None:
    raise error


def _evaluated(compute: Callable[..., Any], weights: dict, batch: DeviceBatch) -> Any:
    """In this thread: what is lazy belongs to it."""
    out = compute(weights, batch)
    mx.eval(out)
    return out


def _joined(ours: Any, theirs: Any) -> Sums:
    ((loss, weight, rows), gradients), ((loss2, weight2, rows2), gradients2) = ours, theirs
    total = {"loss": loss + loss2, "weight": weight + weight2}
    total["gradients"] = tree_map(lambda a, b: a + b, gradients, gradients2)
    return total, {name: mx.concatenate([rows[name], rows2[name]]) for name in rows}
