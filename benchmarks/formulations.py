"""What each formulation for Linux CPU saves against MLX's own: value and gradient, compiled, in turn in one process."""

import os
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import mlx.core as mx

from benchmarks.alternate import alternate, table
from benchmarks.subject import _read
from mlxlab.ops.activations import gelu, glu
from mlxlab.ops.attention import scaled_dot_product_attention
from mlxlab.ops.cross_entropy import cross_entropy
from mlxlab.ops.dropout import apply_dropout
from mlxlab.ops.kl_divergence import divergence

ROWS, LENGTH, VOCABULARY = 8, 256, 5000


def formulations(size: str = "nano", rounds: int = 15) -> str:
    """Of one layer of that size, 8 x 256 tokens, and of the loss over 5,000 classes."""
    shape = _read(f"model/size/{size}")
    rows: list[tuple[str, ...]] = [("function", "ours, ms", "MLX's, ms", "ratio", "greatest difference")]
    for name, (function, inputs) in _works(shape).items():
        mx.eval(inputs)
        variants = {kind: _compiled(function, inputs, kind) for kind in ("1", "0")}
        ours, plain = (statistics.median(trial.seconds) for trial in alternate(variants, rounds))
        values = [mx.concatenate([mx.flatten(x) for x in variants[kind]()]) for kind in ("1", "0")]
        apart = "draws" if name == "dropout" else f"{mx.abs(values[0] - values[1]).max().item():.1e}"
        rows.append((name, f"{1e3 * ours:.2f}", f"{1e3 * plain:.2f}", f"{plain / ours:.1f} x", apart))
    return table(f"model/size={size}, {ROWS} x {LENGTH} tokens, float32, medians of {rounds}", rows)


def _works(shape: dict[str, Any]) -> dict[str, tuple[Callable[..., mx.array], list[mx.array]]]:
    """name -> function of arrays, and the arrays by which it is differentiated."""
    mx.random.seed(0)
    T, width, inner, heads = ROWS * LENGTH, shape["hidden_size"], shape["intermediate_size"], shape["num_heads"]
    draw = mx.random.normal
    targets, told = mx.random.randint(0, VOCABULARY, (T,)), draw((T, VOCABULARY))
    head = (ROWS, heads, LENGTH, width // heads)
    scale, mask = head[-1] ** -0.5, mx.zeros((ROWS, 1, 1, LENGTH))
    queries = [draw(head), draw(head), draw(head)]
    mx.eval(targets, told, mask)
    return {
        "cross-entropy": (lambda logits: cross_entropy(logits, targets), [draw((T, VOCABULARY))]),
        "divergence of a teacher": (partial(divergence, told), [draw((T, VOCABULARY))]),
        "attention, causal": (lambda q, k, v: scaled_dot_product_attention(q, k, v, "causal", scale=scale), queries),
        "attention, all places": (lambda q, k, v: scaled_dot_product_attention(q, k, v, mask, scale=scale), queries),
        "SwiGLU": (partial(glu, "silu"), [draw((T, inner)), draw((T, inner))]),
        "GELU": (gelu, [draw((T, inner))]),
        "dropout": (lambda x: apply_dropout(x, 0.1), [draw((T, width))]),
    }


def _compiled(function: Callable[..., mx.array], inputs: list[mx.array], fast: str) -> Callable[[], Any]:
    """Traced while MLXLAB_CUSTOM_OPS says which formulation is meant."""
    weigh = lambda *x: (function(*x) * 0.5).sum()  # noqa: E731
    compiled = mx.compile(mx.grad(weigh, argnums=list(range(len(inputs)))))

    def work() -> Any:
        found = compiled(*inputs)
        mx.eval(found)
        return found

    with patch.dict(os.environ, MLXLAB_CUSTOM_OPS=fast):
        work()
    return work
