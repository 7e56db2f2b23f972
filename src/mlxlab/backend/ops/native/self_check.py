"""Compares what `mlxlab.backend.ops` computes with the native kernels and without them, and the gradients of it."""

import math
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from mlxlab import backend
from mlxlab.backend.ops.activations import gelu, glu
from mlxlab.backend.ops.attention import (
    MASK_VALUE,
    SegmentMask,
    apply_rope,
    scaled_dot_product_attention,
)
from mlxlab.backend.ops.cross_entropy import cross_entropy, kl_divergence
from mlxlab.backend.ops.dropout import apply_dropout
from mlxlab.backend.ops.layers import Embedding, LayerNorm, RMSNorm, linear
from mlxlab.backend.ops.native import kernels, state
from mlxlab.backend.ops.native.kernels import load
from mlxlab.backend.ops.native.state import MLX, KernelSet
from mlxlab.backend.ops.native.toolchain import KernelsUnavailable

# A function by its name, and the inputs by which it is differentiated.
Cases = dict[str, tuple[Callable[..., mx.array], list[mx.array]]]

TOLERANCE = 2e-5  # relative to the largest element of the result
NATIVE = KernelSet("checked")


def main() -> None:
    """Exits with the reason if the library of the command line may not be used."""
    backend.prepare()
    try:
        load(Path(sys.argv[1]))
    except KernelsUnavailable as reason:
        sys.exit(str(reason))
    sys.exit(check())


def check() -> str | None:
    """The first difference that is too large, None if there is none. A library is bound."""
    for cases in (
        row_cases(3, 5, 7),
        row_cases(130, 96, 70),
        attention_cases(5, 2, 2, 4),
        attention_cases(67, 4, 2, 20),
    ):
        expected = results(cases, MLX)
        for name, arrays in results(cases, NATIVE).items():
            error = _largest_error(arrays, expected[name])
            if error > TOLERANCE:
                return f"{name}: differs from MLX by {error:.1e} of the largest element, expected at most {TOLERANCE:.0e}"
    error = _largest_error(*_optimizer_steps())
    if error > TOLERANCE:
        return f"adamw: differs from MLX by {error:.1e}"
    return None


def results(cases: Cases, kernel_set: KernelSet) -> dict[str, list[mx.array]]:
    """The value of each function, and its gradients."""
    state.use(kernel_set)
    by_name = {}
    for name, (function, inputs) in cases.items():
        weights = normal(99, *function(*inputs).shape)
        mx.random.seed(1)  # Dropout draws the same numbers each time.
        values, gradients = mx.vjp(lambda *x, f=function: [f(*x)], inputs, [weights])
        by_name[name] = [*values, *gradients]
        mx.eval(by_name[name])
    return by_name


def row_cases(rows: int, size: int, out: int) -> Cases:
    """Functions of rows (rows, size), and of weights (out, size)."""
    x = normal(0, rows, size)
    up = normal(1, rows, size)
    weight = normal(2, out, size)
    bias = normal(3, out)
    scale = normal(4, size)
    shift = normal(5, size)
    ids = mx.arange(rows, dtype=mx.int32) * 3
    return {
        "linear": (linear, [x, weight, bias]),
        "linear, bfloat16": (_linear_in_bfloat16, [x, weight, bias]),
        "linear, one row": (linear, [x[:1], weight]),
        "gelu": (gelu, [x]),
        "gated gelu": (partial(glu, "gelu"), [x, up]),
        "gated silu": (partial(glu, "silu"), [x, up]),
        "layer norm": (partial(_call, LayerNorm(size)), [x, scale, shift]),
        "rms norm": (partial(_call, RMSNorm(size)), [x, scale]),
        "embedding": (partial(_call, Embedding(out, size), ids % out), [weight]),
        "cross-entropy": (partial(cross_entropy, targets=ids % size, label_smoothing=0.1), [x]),
        "divergence": (partial(kl_divergence, up, temperature=2.0), [x]),
        "dropout": (partial(apply_dropout, dropped=0.25), [x]),
    }


def attention_cases(length: int, heads: int, kv_heads: int, size: int) -> Cases:
    """Functions of queries, keys and values."""
    q = normal(0, 2, length, heads, size).swapaxes(1, 2)
    k = normal(1, 2, length, kv_heads, size).swapaxes(1, 2)
    v = normal(2, 2, length, kv_heads, size).swapaxes(1, 2)
    positions = mx.arange(length)
    ids = mx.where(positions < length - 2, 1 + (positions > length // 2), 0)
    ids = mx.broadcast_to(ids, (2, length))
    same = (ids[:, None] > 0) & ((ids[:, :, None] == ids[:, None]) | (ids[:, :, None] == 0))
    documents = SegmentMask(ids, False, mx.where(same, 0.0, MASK_VALUE)[:, None])
    one_document = SegmentMask(mx.ones((2, length), mx.bool_), True, "causal")
    attention = partial(scaled_dot_product_attention, scale=0.3)
    return {
        "attention, causal": (partial(attention, mask=one_document), [q, k, v]),
        "attention of documents": (partial(attention, mask=documents, dropout=0.25), [q, k, v]),
        "rotary positions": (partial(apply_rope, theta=1e4), [q]),
    }


def _linear_in_bfloat16(*arrays: mx.array) -> mx.array:
    with kernels.bfloat16_products(True):
        return linear(*arrays)


def _call(layer: nn.Module, x: mx.array, *weights: mx.array) -> mx.array:
    for name, weight in zip(("weight", "bias"), weights, strict=False):
        layer[name] = weight
    return layer(x)


def normal(seed: int, *shape: int) -> mx.array:
    """Random numbers that bfloat16 holds, so that products in it are those in float32."""
    numbers = mx.random.normal(shape, key=mx.random.key(seed))
    return numbers.astype(mx.bfloat16).astype(mx.float32)


def _largest_error(found: Iterable[mx.array], expected: Iterable[mx.array]) -> float:
    """The largest difference, relative to the largest element of each array; infinite for NaN."""
    largest = 0.0
    for a, b in zip(found, expected, strict=True):
        error = mx.abs(a - b).max() / mx.maximum(mx.abs(b).max(), 1e-6)
        largest = max(largest, float(mx.where(mx.isnan(error), math.inf, error)))
    return largest


def _optimizer_steps() -> tuple[list[mx.array], list[mx.array]]:
    """The sum of squares of a gradient, and weight and moments after two steps with it: of the kernels, and of MLX."""
    weight = normal(0, 70, 50)
    gradient = normal(1, 70, 50)
    reference = optim.AdamW(0.1, [0.9, 0.99], 1e-8, 0.1, bias_correction=True)
    expected = {"w": weight}
    arrays = (weight, mx.zeros_like(weight), mx.zeros_like(weight))
    for step in (1, 2):
        expected = reference.apply_gradients({"w": gradient * 0.5}, expected)
        rates = mx.array([0.1, step, 0.1, 0.5, 1])
        current = (arrays[0], gradient, *arrays[1:])
        [arrays] = kernels.adamw(rates, [current], [0], (0.9, 0.99), 1e-8)
    moments = reference.state["w"]
    found = [kernels.square_sum([gradient]), *arrays]
    return found, [mx.square(gradient).sum(), expected["w"], moments["m"], moments["v"]]


if __name__ == "__main__":
    main()
