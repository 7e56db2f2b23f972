"""Functions with their own gradient."""

from collections.abc import Callable

import mlx.core as mx

Arrays = tuple[mx.array, ...]
Forward = Callable[..., Arrays]
Gradient = Callable[[Arrays, mx.array, Arrays], Arrays]


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
        outputs: Arrays = function(*inputs)  # type: ignore[assignment]
        return outputs[0]

    return value
