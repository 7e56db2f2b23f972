"""Optimizers: functions of the rate. Norms, biases and embeddings are never decayed."""

from typing import Annotated, Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten

from mlxlab.bounds import Ge, Lt, MaxLen, MinLen, NonNegative, Positive
from mlxlab.training.schedule import Rate


def adamw(
    weight_decay: NonNegative,
    betas: Annotated[list[Annotated[float, Ge(0), Lt(1)]], MinLen(2), MaxLen(2)],
    eps: Positive,
    *,
    rate: Rate,
) -> optim.Optimizer:
    """AdamW with bias correction (Loshchilov and Hutter 2019).

    Args:
        weight_decay: decay of matrices and convolutions, times the rate.
        betas: decay rates of the first and second moment.
        eps: added to the root of the second moment.
    """
    decayed, plain = (
        optim.AdamW(rate, betas=list(betas), eps=eps, weight_decay=decay, bias_correction=True)
        for decay in (weight_decay, 0.0)
    )
    return optim.MultiOptimizer([decayed, plain], [is_decayed])


def is_decayed(path: str, weight: mx.array) -> bool:
    return weight.ndim >= 2 and "embed" not in path


def fill(tree: Any, leaves: dict[str, mx.array], prefix: str = "") -> None:
    """Puts `leaves`, named as `tree_flatten` names them, into the present tree.

    Leaf by leaf: a rebuilt tree would lack the empty branches of layers without weights, and a compiled step goes on
    with the old one.
    """
    for name in list(tree) if isinstance(tree, dict) else range(len(tree)):
        path = f"{prefix}{name}"
        if isinstance(tree[name], dict | list):
            fill(tree[name], leaves, f"{path}.")
        elif isinstance(tree[name], mx.array):
            tree[name] = leaves[path]


def flat(tree: dict | list) -> dict[str, mx.array]:
    """The arrays of a state tree by path."""
    leaves: list[tuple[str, Any]] = tree_flatten(tree)  # type: ignore[assignment]
    return {path: leaf for path, leaf in leaves if isinstance(leaf, mx.array)}
