"""Speed of each operator for Linux CPU compared with that of MLX: value and gradient, compiled, alternating."""

import os
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import mlx.core as mx

from benchmarks.alternate import alternate, table
from benchmarks.config import read_config
from mlxlab.backend.ops.activations import gelu, glu
from mlxlab.backend.ops.attention import scaled_dot_product_attention
from mlxlab.backend.ops.cross_entropy import cross_entropy, kl_divergence
from mlxlab.backend.ops.dropout import apply_dropout

ROWS, LENGTH, VOCABULARY = 8, 256, 5000


def operators(size: str = "nano", rounds: int = 15) -> str:
    """The operators of one layer of that size for 8 x 256 tokens, and of the loss over 5,000 classes."""
    shape = read_config(f"model/size/{size}")
    rows: list[tuple[str, ...]] = [
        ("operator", "mlxlab (ms)", "MLX (ms)", "speedup", "max difference")
    ]
    for name, (function, inputs) in _operators(shape).items():
        mx.eval(inputs)
        variants = {kind: _compiled(function, inputs, kind) for kind in ("1", "0")}
        custom, builtin = (
            statistics.median(trial.seconds) for trial in alternate(variants, rounds)
        )
        values = [mx.concatenate([mx.flatten(x) for x in variants[kind]()]) for kind in ("1", "0")]
        difference = (
            "random" if name == "dropout" else f"{mx.abs(values[0] - values[1]).max().item():.1e}"
        )
        rows.append(
            (
                name,
                f"{1e3 * custom:.2f}",
                f"{1e3 * builtin:.2f}",
                f"{builtin / custom:.1f} x",
                difference,
            )
        )
    return table(f"model/size={size}, {ROWS} x {LENGTH} tokens, float32, medians of {rounds}", rows)


def _operators(shape: dict[str, Any]) -> dict[str, tuple[Callable[..., mx.array], list[mx.array]]]:
    """Name -> function, and the arrays that it is differentiated by."""
    mx.random.seed(0)
    T, width, inner, heads = (
        ROWS * LENGTH,
        shape["hidden_size"],
        shape["intermediate_size"],
        shape["num_heads"],
    )
    draw = mx.random.normal
    targets, teacher_logits = mx.random.randint(0, VOCABULARY, (T,)), draw((T, VOCABULARY))
    head = (ROWS, heads, LENGTH, width // heads)
    scale, mask = head[-1] ** -0.5, mx.zeros((ROWS, 1, 1, LENGTH))
    queries = [draw(head), draw(head), draw(head)]
    mx.eval(targets, teacher_logits, mask)
    return {
        "cross-entropy": (lambda logits: cross_entropy(logits, targets), [draw((T, VOCABULARY))]),
        "KL divergence": (partial(kl_divergence, teacher_logits), [draw((T, VOCABULARY))]),
        "attention, causal": (
            lambda q, k, v: scaled_dot_product_attention(q, k, v, "causal", scale=scale),
            queries,
        ),
        "attention, bidirectional": (
            lambda q, k, v: scaled_dot_product_attention(q, k, v, mask, scale=scale),
            queries,
        ),
        "SwiGLU": (partial(glu, "silu"), [draw((T, inner)), draw((T, inner))]),
        "GELU": (gelu, [draw((T, inner))]),
        "dropout": (lambda x: apply_dropout(x, 0.1), [draw((T, width))]),
    }


def _compiled(
    function: Callable[..., mx.array], inputs: list[mx.array], custom: str
) -> Callable[[], Any]:
    """The compiled gradient, traced with MLXLAB_CUSTOM_OPS set to `custom`."""
    objective = lambda *x: (function(*x) * 0.5).sum()  # noqa: E731
    compiled = mx.compile(mx.grad(objective, argnums=list(range(len(inputs)))))

    def evaluate() -> Any:
        gradients = compiled(*inputs)
        mx.eval(gradients)
        return gradients

    with patch.dict(os.environ, MLXLAB_CUSTOM_OPS=custom):
        evaluate()
    return evaluate
