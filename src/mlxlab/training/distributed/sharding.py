"""Fully sharded data parallel (ZeRO-3, Rajbhandari et al. 2020; FSDP, Zhao et al. 2023).

Each process holds a shard of every trained weight, of its gradient and of its optimizer state: rows of the first axis,
padded with zeros to the same number on every rank. The weights of a layer are gathered before it is computed and freed
after it. The backward pass gathers them again, computes the layer a second time, as its activations are not stored, and
scatters the summed gradients before it continues with the layer below.

`mlx.nn.fully_shard` needs first axes that the number of processes divides, changes the paths of the weights and keeps
gathered weights from the forward to the backward pass.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from mlxlab.backend.ops.dropout import random_key
from mlxlab.checkpoint.arrays import Arrays, owner_of
from mlxlab.errors import ConfigError
from mlxlab.models.layers import intercept
from mlxlab.training.distributed.process_group import ProcessGroup

Shape = tuple[int, ...]
COPIES = 4  # A gathered layer exists so often at the same time.
MIN_WORKING_BYTES = 1 << 26  # saves less than waiting costs


@dataclass(eq=False)
class GatheredArrays(Mapping[str, mx.array]):
    """Arrays by path, gathered when they are read: all ranks read them once, in the order of the mapping.

    Args:
        arrays: shards, and whole arrays.
        shapes: of the whole arrays of all shards.
    """

    group: ProcessGroup
    arrays: Arrays
    shapes: Mapping[str, Shape]

    def __post_init__(self) -> None:
        self.unread = sorted(self.arrays)

    @property
    def kinds(self) -> dict[str, tuple[Shape, mx.Dtype]]:
        """(shape, dtype) of every whole array, in the order in which they are read."""
        return {
            path: (self.shapes.get(path, self.arrays[path].shape), self.arrays[path].dtype)
            for path in self
        }

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.arrays))

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, path: str) -> mx.array:
        assert self.unread[:1] == [path], f"{path} read out of order"
        self.unread.pop(0)
        array = self.arrays[path]
        shape = self.shapes.get(path)
        if shape is None:
            return array
        with self.group.lockstep():
            whole = self.group.all_gather(array)[: shape[0]]
            mx.eval(whole)
        return whole

    def finish(self) -> None:
        """Takes part in gathering the arrays that this process does not read."""
        while self.unread:
            self[self.unread[0]]


class Replicated:
    """Every process holds all weights."""

    is_sharded = False

    def split(self, arrays: Arrays) -> Arrays:
        """The shards of this process of whole arrays by path; those that are not of trained weights stay whole."""
        return arrays

    def whole(self, arrays: Arrays) -> Arrays:
        """The whole arrays of shards, which all ranks read once and in order."""
        return arrays

    def gathered(self, model: nn.Module) -> AbstractContextManager[None]:
        """Inside, all ranks may call the model at the same time, also to differentiate by the shards."""
        return nullcontext()


class FullySharded:
    """Every process holds a shard of each trained weight.

    Args:
        shapes: those of the whole trained weights, by path.

    Raises:
        ConfigError: a weight is a scalar.
    """

    is_sharded = True

    def __init__(self, group: ProcessGroup, shapes: Mapping[str, Shape]) -> None:
        if scalars := [path for path, shape in shapes.items() if not shape]:
            raise ConfigError(
                f"trainer.parallel=fsdp: {scalars[0]} is a scalar; expected weights with an axis to shard"
            )
        self.group = group
        self.shapes = shapes
        self.shard_shapes = {
            path: (-(-rows // group.size), *rest) for path, (rows, *rest) in shapes.items()
        }

    def split(self, arrays: Arrays) -> Arrays:
        shards: Arrays = {}
        for path, array in arrays.items():
            owner = owner_of(path, self.shapes)
            is_whole = owner is not None and array.shape == self.shapes[owner]
            if is_whole:
                array = self._shard(array)
            mx.eval(array)  # one by one: an array that is not computed yet is whole only here
            shards[path] = array
        return shards

    def whole(self, arrays: Arrays) -> GatheredArrays:
        owners = {path: owner_of(path, self.shapes) for path in arrays}
        shapes = {
            path: self.shapes[owner]
            for path, owner in owners.items()
            if owner is not None and arrays[path].shape == self.shard_shapes[owner]
        }
        return GatheredArrays(self.group, arrays, shapes)

    def working_bytes(self, model: nn.Module) -> int:
        """What a step needs in addition to weights and optimizer state: gradients, and one layer that is gathered.

        That layer has weights, gradients, their sum and copies in messages. Activations are not counted.
        """
        layers = find_layers(model)
        sizes = dict.fromkeys(["", *layers], 0)
        for path, shape in self.shapes.items():
            sizes[next((name for name in layers if path.startswith(f"{name}.")), "")] += 4 * prod(
                shape
            )
        return max(
            sum(sizes.values()) // self.group.size + COPIES * max(sizes.values()), MIN_WORKING_BYTES
        )

    @contextmanager
    def gathered(self, model: nn.Module) -> Iterator[None]:
        """The weights outside of layers are gathered here, those of each layer when it is called."""
        layers = find_layers(model)
        before: Arrays = dict(tree_flatten(model.trainable_parameters()))
        prefixes = tuple(f"{name}." for name in layers)
        outside = {path: leaf for path, leaf in before.items() if not path.startswith(prefixes)}
        try:
            if outside:
                whole = self._gather_with_gradient([*outside], [*outside.values()])
                model.update(tree_unflatten(list(zip(outside, whole, strict=True))))
            with intercept(layers, self._gathering_call):
                yield
        finally:
            if outside:
                model.update(tree_unflatten(list(outside.items())))

    def _gathering_call(self, name: str, kind: type[nn.Module]) -> Callable[..., mx.array]:
        """The call of a layer, which gathers its weights first."""

        def call(layer: nn.Module, x: mx.array, *inputs: Any, **options: Any) -> mx.array:
            return self._call_layer(
                lambda x: kind.__call__(layer, x, *inputs, **options), layer, name, x
            )

        return call

    def _call_layer(
        self, forward: Callable[[mx.array], mx.array], layer: nn.Module, name: str, x: mx.array
    ) -> mx.array:
        """`forward` of a layer as a function of x and its shards, of which nothing else is stored."""
        start = mx.array(random_key())
        before = layer.trainable_parameters()
        shards: Arrays = dict(tree_flatten(before))
        if not shards:
            return forward(x)
        paths = [f"{name}.{each}" for each in shards]

        def compute(x: mx.array, *weights: mx.array) -> mx.array:
            layer.update(tree_unflatten(list(zip(shards, weights, strict=True))))
            try:
                return forward(x)
            finally:
                layer.update(before)

        @mx.custom_function
        def function(x: mx.array, *shards: mx.array) -> mx.array:
            # Not before x: otherwise all layers could be gathered at once, and in another order on each rank.
            return compute(x, *self._gather(paths, mx.depends(list(shards), [x])))

        @function.vjp
        def gradient(
            primals: tuple[mx.array, ...], cotangent: mx.array, _: mx.array
        ) -> tuple[mx.array, ...]:
            x, *shards = mx.depends(list(primals), [cotangent])
            now = mx.array(random_key())
            random_key()[:] = start  # dropout draws the same numbers
            dx, *gradients = mx.vjp(compute, [x, *self._gather(paths, shards)], [cotangent])[1]
            random_key()[:] = now
            reduced = self._sum_scatter(paths, gradients)
            return (*mx.depends([dx], reduced), *reduced)  # the layer below comes after the sum

        return cast(mx.array, function(x, *shards.values()))

    def _gather_with_gradient(self, paths: list[str], shards: list[mx.array]) -> list[mx.array]:
        function = mx.custom_function(lambda *shards: self._gather(paths, list(shards)))
        function.vjp(
            lambda primals, cotangents, outputs: self._sum_scatter(paths, list(cotangents))
        )
        return cast(list[mx.array], function(*shards))

    def _gather(self, paths: list[str], shards: list[mx.array]) -> list[mx.array]:
        """The whole weights, in one message for each dtype."""
        arrays = dict(zip(paths, shards, strict=True))
        whole: Arrays = {}
        for dtype in dict.fromkeys(shard.dtype for shard in shards):
            part = {path: shard for path, shard in arrays.items() if shard.dtype == dtype}
            message = mx.concatenate([shard.reshape(1, -1) for shard in part.values()], axis=1)
            for path, rows in _columns(self.group.all_gather(message), part).items():
                length, *rest = self.shapes[path]
                whole[path] = rows.reshape(-1, *rest)[:length]
        return [whole[path] for path in paths]

    def _sum_scatter(self, paths: list[str], gradients: list[mx.array]) -> list[mx.array]:
        """The shards of the sums of whole gradients over all ranks, in one message."""
        shapes = {path: self.shard_shapes[path] for path in paths}
        rows = []
        for gradient, (length, *_) in zip(gradients, shapes.values(), strict=True):
            padded = _pad(gradient.astype(mx.float32), length * self.group.size)
            rows.append(padded.reshape(self.group.size, -1))
        like = {path: row[:1] for path, row in zip(paths, rows, strict=True)}
        summed = _columns(self.group.sum_scatter(mx.concatenate(rows, axis=1)), like)
        return [
            summed[path].reshape(shapes[path]).astype(gradient.dtype)
            for path, gradient in zip(paths, gradients, strict=True)
        ]

    def _shard(self, array: mx.array) -> mx.array:
        length = -(-len(array) // self.group.size)
        start = self.group.rank * length
        return mx.contiguous(_pad(array[start : start + length], length))


Sharding = Replicated | FullySharded  # How the processes of a group hold the weights of a model.


def find_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules in lists called `layers`, by path; of nested ones the outermost."""
    layers = {}
    for path, module in model.named_modules():
        if isinstance(module.get("layers"), list):
            for index, layer in enumerate(module["layers"]):
                if isinstance(layer, nn.Module):
                    layers[f"{path}.layers.{index}".lstrip(".")] = layer
    prefixes = tuple(f"{path}." for path in layers)
    return {path: layer for path, layer in layers.items() if not path.startswith(prefixes)}


def _pad(array: mx.array, length: int) -> mx.array:
    """Adds zeros at the end of the first axis."""
    missing = length - len(array)
    if not missing:
        return array
    return mx.concatenate([array, mx.zeros((missing, *array.shape[1:]), array.dtype)])


def _columns(matrix: mx.array, arrays: Arrays) -> Arrays:
    """Splits a matrix by columns: as many for each array as it has elements."""
    ends = list(accumulate(array.size for array in arrays.values()))
    return dict(zip(arrays, mx.split(matrix, ends[:-1], axis=1), strict=True))
