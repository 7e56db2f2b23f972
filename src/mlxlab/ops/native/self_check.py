"""Compares every native kernel and its gradients with the same formula in MLX's operators."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

from mlxlab.ops.custom_gradient import Arrays, with_gradient
from mlxlab.ops.native import kernels

Function = Callable[..., mx.array]
Case = tuple[
    str, Function, Function, tuple[mx.array, ...]
]  # name, kernel, formula, the inputs with a gradient

TOLERANCE = 2e-5  # of the largest element of the result
ROPE_THETA = 1e4


def check() -> str | None:
    """The first difference that is too large, None if there is none. A library is bound."""
    for name, kernel, formula, inputs in _cases():
        with kernels.bfloat16_products("bfloat16" in name):
            error = _largest_error(kernel, formula, inputs)
        if not error <= TOLERANCE:
            return f"{name}: differs from MLX by {error:.1e} of the largest element, expected at most {TOLERANCE:.0e}"
    return (
        None
        if (error := _adamw_error()) <= TOLERANCE
        else f"adamw: differs from MLX by {error:.1e}"
    )


def _largest_error(kernel: Function, formula: Function, inputs: tuple[mx.array, ...]) -> float:
    """Of values and gradients, relative to the largest element of each."""
    weights = _normal(99, *formula(*inputs).shape)
    found, expected = ([function(*inputs)] for function in (kernel, formula))
    if inputs:
        found += mx.vjp(lambda *arrays: [kernel(*arrays)], list(inputs), [weights])[1]
        expected += mx.vjp(lambda *arrays: [formula(*arrays)], list(inputs), [weights])[1]
    return _worst(_relative(a, b) for a, b in zip(found, expected, strict=True))


def _worst(errors: Iterable[float]) -> float:
    """Infinite if one is NaN, which `max` would drop."""
    return max(math.inf if math.isnan(error) else error for error in errors)


def _relative(a: mx.array, b: mx.array) -> float:
    error: float = (mx.abs(a - b).max() / mx.maximum(mx.abs(b).max(), 1e-6)).item()  # type: ignore[assignment]
    return error


def _normal(seed: int, *shape: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed))


def _cases() -> Iterator[Case]:
    for rows, size, out in ((3, 5, 7), (130, 96, 70)):
        yield from _row_cases(rows, size, out)
    for length, heads, kv_heads, size in ((5, 2, 2, 4), (67, 4, 2, 20)):
        yield from _attention_cases(length, heads, kv_heads, size)


def _row_cases(rows: int, size: int, out: int) -> Iterator[Case]:
    x, up, weight, bias = (
        _normal(0, rows, size),
        _normal(1, rows, size),
        _normal(2, out, size),
        _normal(3, out),
    )
    scale, shift = _normal(4, size), _normal(5, size)
    yield "linear", kernels.linear, lambda x, w, b: x @ w.T + b, (x, weight, bias)
    yield (
        "linear, bfloat16",
        kernels.linear,
        with_gradient(_bfloat16_linear, _bfloat16_linear_vjp),
        (x, weight, bias),
    )
    yield "linear, one row", kernels.linear, lambda x, w: x @ w.T, (x[:1], weight)
    yield "gelu", partial(kernels.activation, "gelu"), nn.gelu, (x,)
    yield "silu", partial(kernels.activation, "silu"), nn.silu, (x,)
    yield "gated gelu", partial(kernels.activation, "gelu"), lambda x, up: nn.gelu(x) * up, (x, up)
    yield "gated silu", partial(kernels.activation, "silu"), lambda x, up: nn.silu(x) * up, (x, up)
    layer = partial(kernels.norm, eps=1e-5, centered=True)
    yield "layer norm", layer, lambda x, w, b: mx.fast.layer_norm(x, w, b, 1e-5), (x, scale, shift)
    rms = partial(kernels.norm, bias=None, eps=1e-5, centered=False)
    yield "rms norm", lambda x, w: rms(x, w), lambda x, w: mx.fast.rms_norm(x, w, 1e-5), (x, scale)
    ids = mx.arange(rows, dtype=mx.int32) * 3 % size
    loss = partial(nn.losses.cross_entropy, targets=ids, label_smoothing=0.1, reduction="none")
    yield "cross-entropy", lambda x: kernels.cross_entropy(x, ids, 0.1), loss, (x,)
    yield (
        "divergence",
        lambda x: kernels.kl_divergence(x, up, 0.5),
        lambda x: _divergence(x * 0.5, up * 0.5),
        (x,),
    )
    yield "embedding", lambda w: kernels.embedding(ids % out, w), lambda w: w[ids % out], (weight,)
    yield (
        "sum of squares",
        lambda: kernels.square_sum([x, up]),
        lambda: (x * x).sum() + (up * up).sum(),
        (),
    )
    keep, dropout = _dropout(x.shape)
    yield "dropout", lambda x: kernels.dropout(x, *dropout), lambda x: x * keep, (x,)


def _bfloat16_linear(x: mx.array, w: mx.array, b: mx.array) -> Arrays:
    return (_bfloat16(x) @ _bfloat16(w).T + b,)


def _bfloat16_linear_vjp(inputs: Arrays, cotangent: mx.array, _: Arrays) -> Arrays:
    x, w, narrow = _bfloat16(inputs[0]), _bfloat16(inputs[1]), _bfloat16(cotangent)
    return narrow @ w, narrow.T @ x, cotangent.sum(axis=0)


def _bfloat16(x: mx.array) -> mx.array:
    return x.astype(mx.bfloat16).astype(mx.float32)


def _attention_cases(length: int, heads: int, kv_heads: int, size: int) -> Iterator[Case]:
    q, k, v = (
        _normal(i, 2, length, n, size).swapaxes(1, 2)
        for i, n in enumerate((heads, kv_heads, kv_heads))
    )
    positions = mx.arange(length)
    ids = mx.broadcast_to(
        mx.where(positions < length - 2, 1 + (positions > length // 2), 0), (2, length)
    )
    before = positions[:, None] >= positions
    same = (ids[:, None] > 0) & ((ids[:, :, None] == ids[:, None]) | (ids[:, :, None] == 0))
    keep, dropout = _dropout((2, heads, length, length))
    attention = partial(kernels.attention, scale=0.3)

    def formula(
        q: mx.array, k: mx.array, v: mx.array, allowed: mx.array, keep: mx.array | float = 1.0
    ) -> mx.array:
        k, v = (mx.repeat(x, heads // kv_heads, axis=1) for x in (k, v))
        return (
            mx.softmax(mx.where(allowed, q * 0.3 @ k.swapaxes(-1, -2), -1e9), axis=-1) * keep
        ) @ v

    yield (
        "attention, causal",
        partial(attention, causal=True),
        partial(formula, allowed=before),
        (q, k, v),
    )
    yield (
        "attention of documents with dropout",
        partial(attention, causal=False, segment_ids=ids, dropout=dropout),
        partial(formula, allowed=same[:, None], keep=keep),
        (q, k, v),
    )
    angles = positions[:, None] / ROPE_THETA ** (mx.arange(size // 2) * 2 / size)
    table = mx.concatenate([mx.cos(angles), mx.sin(angles)], axis=1)
    rope = partial(mx.fast.rope, dims=size, traditional=False, base=ROPE_THETA, scale=1.0, offset=0)
    yield "rotary positions", lambda q: kernels.rope(q, table), lambda q: rope(q), (q,)


def _dropout(shape: tuple[int, ...]) -> tuple[mx.array, tuple[mx.array, int, float]]:
    """What a mask multiplies, and the arguments of the kernel."""
    from mlxlab.ops.dropout import DropoutMask

    mask = DropoutMask(tuple(shape), mx.array([12345, 67890], mx.uint32), 50_000)
    return mask.keep_mask * mask.scale, (mask.key, mask.bound, mask.scale)


def _divergence(z: mx.array, t: mx.array) -> mx.array:
    log_p, log_q = (x - mx.logsumexp(x, axis=-1, keepdims=True) for x in (t, z))
    return (mx.exp(log_p) * (log_p - log_q)).sum(axis=-1)


def _adamw_error() -> float:
    """After two steps, the second of which the kernel is told not to take and then takes."""
    weight, gradient = _normal(0, 70, 50), _normal(1, 70, 50)
    reference = optim.AdamW(
        0.1, betas=[0.9, 0.99], eps=1e-8, weight_decay=0.1, bias_correction=True
    )
    expected, state = {"w": weight}, (weight, mx.zeros_like(weight), mx.zeros_like(weight))
    for step, taken in ((1, 1), (2, 0), (2, 1)):
        hyperparameters = mx.array([0.1, step, 0.1, 0.5, taken], mx.float32)
        state = kernels.adamw(
            hyperparameters, [(state[0], gradient, *state[1:])], [0], (0.9, 0.99), 1e-8
        )[0]
        if taken:
            expected = reference.apply_gradients({"w": gradient * 0.5}, expected)
    moments = reference.state["w"]
    return _worst(
        _relative(a, b)
        for a, b in zip(state, (expected["w"], moments["m"], moments["v"]), strict=True)
    )
