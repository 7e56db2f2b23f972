"""GELU, SiLU and gated linear units. On Linux CPU with their own gradients, computed in the forward pass."""

import math
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxlab.ops.exp import exp_of_negative, fusion_barrier, use_custom_ops

# erf(x) = 1 - (a1 t + ... + a5 t^5) e^(-x^2), t = 1 / (1 + 0.3275911 x) (Abramowitz and Stegun 7.1.26): error 1.5e-7.
ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
TINY = 1e-30


def gelu(x: mx.array) -> mx.array:
    """x Phi(x) with the normal distribution function (Hendrycks and Gimpel 2016), not its approximation by tanh."""
    return _first(_gelu(x)) if _rewrites(x) else nn.gelu(x)


def silu(x: mx.array) -> mx.array:
    """x times its sigmoid."""
    return _first(_silu(x)) if _rewrites(x) else nn.silu(x)


def glu(kind: str, gate: mx.array, up: mx.array) -> mx.array:
    """`up` times the activated gate: silu or gelu (Shazeer 2020)."""
    if kind == "silu" and _rewrites(gate):
        return _first(_gated_by_silu(gate, up))
    return (silu if kind == "silu" else gelu)(gate) * up


def _rewrites(x: mx.array) -> bool:
    return use_custom_ops() and x.dtype == mx.float32


def _first(outputs: Any) -> mx.array:
    """The value alone; the other outputs are for the gradient."""
    value: mx.array = outputs[0]
    return value


@mx.custom_function
def _gelu(x: mx.array) -> tuple[mx.array, mx.array]:
    """The value and the slope."""
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


@_gelu.vjp
def _gelu_gradient(x: mx.array, cotangents: tuple[mx.array, ...], outputs: tuple[mx.array, ...]) -> mx.array:
    return cotangents[0] * outputs[1]


@mx.custom_function
def _silu(x: mx.array) -> tuple[mx.array, mx.array]:
    """The value and the slope."""
    value, share = _value_and_share(x)
    return value, share + value * (1 - share)


@_silu.vjp
def _silu_gradient(x: mx.array, cotangents: tuple[mx.array, ...], outputs: tuple[mx.array, ...]) -> mx.array:
    return cotangents[0] * outputs[1]


@mx.custom_function
def _gated_by_silu(x: mx.array, up: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """The product, and silu and sigmoid of the gate."""
    value, share = _value_and_share(x)
    return value * up, value, share


@_gated_by_silu.vjp
def _gated_by_silu_gradient(
    primals: tuple[mx.array, ...], cotangents: tuple[mx.array, ...], outputs: tuple[mx.array, ...]
) -> tuple[mx.array, mx.array]:
    slope, (_, value, share) = cotangents[0], outputs
    return slope * primals[1] * (share + value * (1 - share)), slope * value


def _value_and_share(x: mx.array) -> tuple[mx.array, mx.array]:
    """x sigmoid(x), sigmoid(x)"""
    size = mx.abs(x)
    power = exp_of_negative(-size)
    tail = fusion_barrier(power / (1 + power))  # the sigmoid of -|x|
    return fusion_barrier((x + size) * 0.5 - size * tail), fusion_barrier(0.5 + x / (size + TINY) * (0.5 - tail))
