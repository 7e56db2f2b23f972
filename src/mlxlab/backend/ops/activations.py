"""GELU, SiLU and gated linear units. On Linux CPU native, or with their own gradients, from the forward pass."""

import math
from typing import Literal

import mlx.core as mx
import mlx.nn as nn

from mlxlab.backend.ops.exp import (
    Arrays,
    exp_of_negative,
    fusion_barrier,
    use_custom_ops,
    with_gradient,
)
from mlxlab.backend.ops.native import kernels

# erf(x) = 1 - (a1 t + ... + a5 t^5) e^(-x^2), t = 1 / (1 + 0.3275911 x) (Abramowitz and Stegun 7.1.26): error 1.5e-7.
ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
TINY = 1e-30


def gelu(x: mx.array) -> mx.array:
    """x Phi(x) with the normal distribution function (Hendrycks and Gimpel 2016), not its approximation by tanh."""
    if kernels.usable(x):
        return kernels.activation("gelu", x)
    if _rewrites(x):
        return _gelu(x)
    return nn.gelu(x)


def silu(x: mx.array) -> mx.array:
    """x times its sigmoid."""
    if kernels.usable(x):
        return kernels.activation("silu", x)
    if _rewrites(x):
        return _silu(x)
    return nn.silu(x)


def glu(kind: Literal["gelu", "silu"], gate: mx.array, up: mx.array) -> mx.array:
    """`up` times the activated gate: silu or gelu (Shazeer 2020)."""
    if kernels.usable(gate, up) and gate.shape == up.shape:
        return kernels.activation(kind, gate, up)
    if kind == "gelu":
        return gelu(gate) * up
    if _rewrites(gate):
        return _gated_by_silu(gate, up)
    return silu(gate) * up


def _rewrites(x: mx.array) -> bool:
    return use_custom_ops() and x.dtype == mx.float32


def _gelu_and_derivative(x: mx.array) -> tuple[mx.array, mx.array]:
    size = mx.abs(x)
    bell = exp_of_negative(fusion_barrier(x * x * -0.5))
    t = fusion_barrier(1 / (1 + size * (0.3275911 / math.sqrt(2))))
    tail = t * ERF[4] + ERF[3]
    tail = fusion_barrier(tail * t + ERF[2])
    tail = tail * t + ERF[1]
    tail = fusion_barrier((tail * t + ERF[0]) * t * bell * 0.5)  # 1 - Phi(|x|)
    value = (x + size) * 0.5 - size * tail
    below = 0.5 + fusion_barrier(x / (size + TINY)) * (0.5 - tail)
    return value, below + x * bell * (1 / math.sqrt(2 * math.pi))


def _silu_and_derivative(x: mx.array) -> tuple[mx.array, mx.array]:
    value, sigmoid = _silu_and_sigmoid(x)
    return value, sigmoid + value * (1 - sigmoid)


def _product_silu_and_sigmoid(gate: mx.array, up: mx.array) -> Arrays:
    value, sigmoid = _silu_and_sigmoid(gate)
    return value * up, value, sigmoid


def _silu_and_sigmoid(x: mx.array) -> tuple[mx.array, mx.array]:
    size = mx.abs(x)
    power = exp_of_negative(-size)
    tail = fusion_barrier(power / (1 + power))  # the sigmoid of -|x|
    value = fusion_barrier((x + size) * 0.5 - size * tail)
    return value, fusion_barrier(0.5 + x / (size + TINY) * (0.5 - tail))


def _product_gradient(inputs: Arrays, cotangent: mx.array, outputs: Arrays) -> Arrays:
    _, up = inputs
    _, value, sigmoid = outputs
    return cotangent * up * (sigmoid + value * (1 - sigmoid)), cotangent * value


_gelu = with_gradient(_gelu_and_derivative, lambda _, cotangent, outputs: (cotangent * outputs[1],))
_silu = with_gradient(_silu_and_derivative, lambda _, cotangent, outputs: (cotangent * outputs[1],))
_gated_by_silu = with_gradient(_product_silu_and_sigmoid, _product_gradient)
