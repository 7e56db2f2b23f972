"""Functions with their own gradient, and activation checkpointing; both can be recorded instead of built.

MLX cannot export the graph of a custom gradient. `mlxlab.estimate` records each one, to put it into the graph itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

Arrays = tuple[mx.array, ...]
Forward = Callable[..., Arrays]
Gradient = Callable[[Arrays, mx.array, Arrays], Arrays]
Recorder = Callable[
    [Forward, Gradient, Arrays], mx.array
]  # returns the value in place of the function

DISTINCT = -7919.0  # marks the copies of `distinct`

_recorder: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


@contextmanager
def recorded_by(recorder: Recorder) -> Iterator[None]:
    """Inside, `recorder` gets all functions with their own gradient."""
    token = _recorder.set(recorder)
    try:
        yield
    finally:
        _recorder.reset(token)


def is_recording() -> bool:
    """Whether functions with their own gradient are recorded now."""
    return _recorder.get() is not None


def distinct(arrays: Arrays) -> Arrays:
    """The arrays; under a recorder as other ones, for MLX exports what is computed twice from the same ones once."""
    if _recorder.get() is None:
        return arrays
    return tuple(mx.depends(list(arrays), [mx.array(DISTINCT)]))


def with_gradient(forward: Forward, gradient: Gradient) -> Callable[..., mx.array]:
    """A function with its own gradient.

    Args:
        forward: returns the value, and whatever else the gradient needs.
        gradient: of the inputs, the cotangent of the value, and all that `forward` returned.
    """
    function = mx.custom_function(forward)

    @function.vjp
    def vjp(inputs: Arrays | mx.array, cotangents: Arrays, outputs: Arrays) -> Arrays:
        # MLX passes a single input as itself.
        return gradient(
            (inputs,) if isinstance(inputs, mx.array) else inputs, cotangents[0], outputs
        )

    def value(*inputs: mx.array) -> mx.array:
        if (recorder := _recorder.get()) is not None:
            return recorder(forward, gradient, inputs)
        outputs: Arrays = function(*inputs)  # type: ignore[assignment]
        return outputs[0]

    return value


def checkpoint(
    function: Callable[[Any, mx.array], mx.array],
) -> Callable[[Any, mx.array], mx.array]:
    """`mx.checkpoint` of a function (weights, x) -> array: its activations are computed again for the gradient."""
    checkpointed = mx.checkpoint(function)

    def value(weights: Any, x: mx.array) -> mx.array:
        recorder = _recorder.get()
        if recorder is None:
            return checkpointed(weights, x)
        names, leaves = zip(*tree_flatten(weights), strict=True)

        def forward(*inputs: mx.array) -> Arrays:
            return (function(tree_unflatten(list(zip(names, inputs, strict=False))), inputs[-1]),)

        def gradient(inputs: Arrays, cotangent: mx.array, outputs: Arrays) -> Arrays:
            again = mx.depends(list(inputs), list(outputs))  # as in mx.checkpoint
            return tuple(mx.vjp(lambda *args: list(forward(*args)), again, [cotangent])[1])

        return recorder(forward, gradient, (*leaves, x))

    return value
