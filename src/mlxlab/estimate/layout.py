"""How an array lies in memory: strides, and how many numbers its buffer has. As in MLX's CPU backend."""

from dataclasses import dataclass
from math import prod
from typing import Any

from mlxlab.estimate.graph import Operation, Shape

VIEWS = {"Copy", "StopGradient", "CustomTransforms", "Depends"}  # the output is the input


@dataclass(frozen=True)
class Layout:
    """Strides are in numbers, 0 along a broadcast axis; `data_size` numbers are in memory."""

    shape: Shape
    strides: Shape
    data_size: int

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def row_contiguous(self) -> bool:
        return self._dense(range(len(self.shape) - 1, -1, -1))

    @property
    def column_contiguous(self) -> bool:
        return self._dense(range(len(self.shape)))

    @property
    def contiguous(self) -> bool:
        """True if there are no holes between the numbers; a broadcast array may be."""
        return (
            prod(n for n, stride in zip(self.shape, self.strides, strict=True) if stride)
            == self.data_size
        )

    def _dense(self, axes: range) -> bool:
        step = 1
        for axis in axes:
            if self.shape[axis] != 1 and self.strides[axis] != step:
                return False
            step *= self.shape[axis]
        return True


def dense(shape: Shape) -> Layout:
    """That of a new array."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return Layout(shape, tuple(reversed(strides)), step)


def view(operation: Operation, source: Layout, shape: Shape) -> Layout | None:
    """The layout of an output that shares the buffer of the first input; None if the operation copies."""
    name, arguments = operation.name, operation.arguments
    if name in VIEWS or name == "Split":
        size = source.data_size if shape == source.shape else prod(shape)
        return Layout(shape, source.strides, size)
    if name in ("Broadcast", "BroadcastAxes"):
        return _broadcast(source, shape)
    if name == "Transpose":
        axes = arguments[0]
        return Layout(shape, tuple(source.strides[axis] for axis in axes), source.data_size)
    if name in ("Squeeze", "ExpandDims"):
        return Layout(shape, _reinsert(source, shape), source.data_size)
    if name == "Slice":
        return _slice(source, shape, arguments)
    if name == "AsStrided":
        strides = tuple(arguments[1])
        return Layout(
            shape, strides, 1 + sum(s * (n - 1) for n, s in zip(shape, strides, strict=True))
        )
    if name in ("Reshape", "Flatten", "Unflatten"):
        return reshape(source, shape)
    if name == "View":
        return dense(shape) if source.row_contiguous else None
    return None


def reshape(source: Layout, shape: Shape) -> Layout | None:
    """The same numbers in another shape; None if that needs a copy."""
    if source.row_contiguous or not source.shape:
        return Layout(
            shape, dense(shape).strides if source.shape else (0,) * len(shape), source.data_size
        )
    sizes, strides = _collapsed(source)
    out: list[int] = []
    axis = 0
    for n in shape:
        if axis < len(sizes) and sizes[axis] % n == 0:
            sizes[axis] //= n
            out.append(sizes[axis] * strides[axis])
            axis += sizes[axis] == 1
        elif n == 1:
            out.append(out[-1])
        else:
            return None
    return Layout(shape, tuple(out), source.data_size)


def _collapsed(source: Layout) -> tuple[list[int], list[int]]:
    sizes: list[int] = []
    strides: list[int] = []
    for n, stride in zip(source.shape, source.strides, strict=True):
        if n == 1:
            continue
        if sizes and strides[-1] == n * stride:
            sizes[-1], strides[-1] = sizes[-1] * n, stride
        else:
            sizes.append(n)
            strides.append(stride)
    return sizes, strides


def _broadcast(source: Layout, shape: Shape) -> Layout:
    added = len(shape) - len(source.shape)
    own = zip(source.shape, source.strides, shape[added:], strict=True)
    strides = [0] * added + [0 if n != full else stride for n, stride, full in own]
    return Layout(shape, tuple(strides), source.data_size)


def _reinsert(source: Layout, shape: Shape) -> Shape:
    """The strides of an array that gains or loses axes of length 1."""
    strides = iter([s for n, s in zip(source.shape, source.strides, strict=True) if n != 1])
    return tuple(next(strides) if n != 1 else 1 for n in shape)


def _slice(source: Layout, shape: Shape, arguments: tuple[Any, ...]) -> Layout:
    strides = tuple(
        abs(step) * stride for step, stride in zip(arguments[2], source.strides, strict=True)
    )
    span = 1 + sum(stride * (n - 1) for n, stride in zip(shape, strides, strict=True))
    return Layout(shape, strides, span)
