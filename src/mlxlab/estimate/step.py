"""Memory of a training step, without allocating: its graphs are traced and their evaluation is replayed."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_map, tree_unflatten

from mlxlab.data.batch import Batch
from mlxlab.estimate.graph import trace
from mlxlab.estimate.replay import Replay
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.head_chunks import HeadChunk
from mlxlab.training.losses.loss import Loss
from mlxlab.training.optim.optimizers import assign_leaves, flatten_arrays
from mlxlab.training.steps.microbatch import make_gradient_fn, restore_weights_after
from mlxlab.training.steps.optimized import states_by_weight, weight_chunks
from mlxlab.training.steps.step import Totals, clipped_update, stack_scalars

T = TypeVar("T")
Arrays = dict[str, mx.array]
MODEL, OPTIMIZER, BATCH, TOTALS = "model.", "optimizer.", "batch.", "totals."


@dataclass(frozen=True)
class StepOptions:
    """The options of a step that change its memory.

    Args:
        plain: the plain step, which keeps the gradients until its end.
    """

    plain: bool = True
    accumulate: int = 1
    activation_checkpointing: bool = False
    head_chunk: HeadChunk = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    one_graph: bool = True


class StepMemory(NamedTuple):
    """Bytes of a training step: what it always holds, and the peak. `activations` is what the peak has besides."""

    weights: int
    gradients: int
    optimizer: int
    batch: int
    activations: int
    peak: int


@dataclass(frozen=True)
class TracedStep:
    """A step on a model and an optimizer whose arrays are never evaluated."""

    model: nn.Module
    optimizer: optim.Optimizer
    loss: Loss
    options: StepOptions

    def memory(self, batch: Batch) -> StepMemory:
        """The memory of a step on batches like this one, of which only the shapes matter."""
        device_batch = outline(batch)
        weights, state = (_total(each) for each in (self._weights(), self._state()))
        gradients = _total(flatten_arrays(self.model.trainable_parameters()))
        size = sum(array.nbytes for array in flatten_arrays(device_batch._asdict()).values())
        options = self.options
        if options.plain or (
            options.one_graph and options.accumulate == 1 and not options.activation_checkpointing
        ):
            peak = self._full_step(device_batch)
        else:
            peak = max(self._sums(device_batch) + size + state, self._apply() + size)
        return StepMemory(
            weights, gradients, state, size, max(peak - weights - gradients - state - size, 0), peak
        )

    def _full_step(self, batch: DeviceBatch) -> int:
        counts: list[int] = []

        def step(arrays: Arrays) -> list[mx.array]:
            self._assign(arrays)
            totals, per_example = self._gradient(arrays, batch)
            norm, finite = clipped_update(self.model, self.optimizer, totals, 1.0)
            out = [stack_scalars(totals, norm, finite, per_example), *per_example.values()]
            out += [*self._weights().values(), *self._state().values()]
            counts.append(len(out))
            return out + ([*flatten_arrays(dict(totals)).values()] if self.options.plain else [])

        inputs = self._inputs(weights=True, state=True) | _prefixed(
            BATCH, flatten_arrays(batch._asdict())
        )
        with self._restored():
            graph = trace(step, inputs)
        held = [name for key, name in graph.inputs.items() if key.startswith(BATCH)]
        replay = Replay(graph, [*graph.outputs, *held])
        replay.evaluate(graph.outputs[: counts[-1]])
        return replay.peak

    def _sums(self, batch: DeviceBatch) -> int:
        """The peak of adding the gradients of a micro-batch to those so far, without optimizer state."""
        rows = -(-len(batch.example_ids) // self.options.accumulate)
        micro_batch: DeviceBatch = tree_map(
            lambda array: mx.zeros((rows, *array.shape[1:]), array.dtype), batch
        )
        accumulates = self.options.accumulate > 1
        totals: Arrays = flatten_arrays(self.model.trainable_parameters()) if accumulates else {}

        def sums(arrays: Arrays) -> list[mx.array]:
            self._assign(arrays)
            with restore_weights_after(self.model):
                new, per_example = self._gradient(arrays, micro_batch)
            before = _selected(arrays, TOTALS)
            added = [
                before[k] + v if k in before else v
                for k, v in flatten_arrays(new["gradients"]).items()
            ]
            return [new["loss"], new["weight"], *added, *per_example.values()]

        inputs = self._inputs(weights=True) | _prefixed(TOTALS, totals)
        inputs |= _prefixed(BATCH, flatten_arrays(micro_batch._asdict()))
        with self._restored():
            graph = trace(sums, inputs)
        held = [name for key, name in graph.inputs.items() if not key.startswith(TOTALS)]
        replay = Replay(graph, [*graph.outputs, *held])
        replay.evaluate(graph.outputs)
        return replay.peak

    def _apply(self) -> int:
        """The peak of the update, some weights at a time, with the optimizer state."""
        weights = flatten_arrays(self.model.trainable_parameters())

        def apply(arrays: Arrays) -> list[mx.array]:
            self._assign(arrays)
            gradients = tree_unflatten([*_selected(arrays, TOTALS).items()])
            totals: Totals = {
                "loss": mx.array(1.0),
                "weight": mx.array(1.0),
                "gradients": gradients,
            }
            clipped_update(self.model, self.optimizer, totals, 1.0)
            new_weights, new_state = (
                flatten_arrays(self.model.trainable_parameters()),
                self._state(),
            )
            names.extend((*new_weights, *_prefixed(OPTIMIZER, new_state)))
            return [*new_weights.values(), *new_state.values()]

        names: list[str] = []
        with self._restored():
            graph = trace(
                apply, self._inputs(weights=True, state=True) | _prefixed(TOTALS, weights)
            )
        replay, outputs = Replay(graph, graph.outputs), dict(zip(names, graph.outputs, strict=True))
        states = states_by_weight(_selected(outputs, OPTIMIZER), weights)
        for chunk in weight_chunks({name: leaf.size for name, leaf in weights.items()}):
            replay.evaluate(
                [out for weight in chunk for out in (outputs[weight], *states.get(weight, []))]
            )
        replay.evaluate(graph.outputs)
        return replay.peak

    def _gradient(self, arrays: Arrays, batch: DeviceBatch) -> tuple[Totals, dict[str, mx.array]]:
        leaves = _selected(arrays, BATCH)
        traced = DeviceBatch(**tree_unflatten([*leaves.items()]))
        gradient = make_gradient_fn(
            self.model,
            self.loss,
            dtype=getattr(mx, self.options.dtype),
            checkpointing=self.options.activation_checkpointing,
            head_chunk=self.options.head_chunk,
        )
        with restore_weights_after(self.model):
            return gradient(traced, self.model.trainable_parameters())

    def _weights(self) -> Arrays:
        return flatten_arrays(self.model.parameters())

    def _state(self) -> Arrays:
        return flatten_arrays(self.optimizer.state)

    def _inputs(self, *, weights: bool = False, state: bool = False) -> Arrays:
        own = _prefixed(MODEL, self._weights()) if weights else {}
        return own | (_prefixed(OPTIMIZER, self._state()) if state else {})

    def _assign(self, arrays: Arrays) -> None:
        self.model.update(tree_unflatten([*_selected(arrays, MODEL).items()]))
        if state := _selected(arrays, OPTIMIZER):
            assign_leaves(self.optimizer.state, state)

    @contextmanager
    def _restored(self) -> Iterator[None]:
        """Afterwards the model and the optimizer have the arrays that they had before."""
        weights, state = self._weights(), self._state()
        try:
            yield
        finally:
            self.model.update(tree_unflatten([*weights.items()]))
            assign_leaves(self.optimizer.state, state)


def outline(batch: Batch) -> DeviceBatch:
    """A batch of these shapes, never evaluated."""
    dtypes = {
        np.dtype(np.int64): mx.int64,
        np.dtype(np.float32): mx.float32,
        np.dtype(np.bool_): mx.bool_,
    }

    def zeros(array: np.ndarray) -> mx.array:
        return mx.zeros(array.shape, dtypes.get(array.dtype, mx.int32))

    return DeviceBatch(*tree_map(zeros, tuple(batch)))


def _prefixed(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def _selected(arrays: Mapping[str, T], prefix: str) -> dict[str, T]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def _total(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())
