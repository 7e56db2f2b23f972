"""Optimizers; the loop sets their `learning_rate` before every step. Norms, biases and embeddings are not decayed."""

from collections.abc import Callable
from typing import Annotated, Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten

from mlxlab.constraints import Ge, Lt, MaxLen, MinLen, NonNegative, Positive, Share
from mlxlab.errors import ConfigError

Betas = Annotated[list[Annotated[float, Ge(0), Lt(1)]], MinLen(2), MaxLen(2)]


def adamw(weight_decay: NonNegative, betas: Betas, eps: Positive, *, learning_rate: float) -> optim.Optimizer:
    """AdamW with bias correction (Loshchilov and Hutter 2019).

    Args:
        weight_decay: decay of matrices and convolutions, times the rate.
        betas: decay rates of the first and second moment.
        eps: added to the root of the second moment.
    """
    return split_by_decay(
        lambda decay: optim.AdamW(learning_rate, betas=list(betas), eps=eps, weight_decay=decay, bias_correction=True),
        weight_decay,
    )


def adafactor(
    weight_decay: NonNegative,
    clip_update: Positive,
    beta: Share | None,
    scale_by_weights: bool,
    *,
    learning_rate: float,
) -> optim.Optimizer:
    """Adafactor (Shazeer and Stern 2018): of a matrix's second moments only the means of rows and columns are kept.

    Args:
        weight_decay: decay of matrices and convolutions, times the rate.
        clip_update: greatest root mean square of an update, before the rate.
        beta: decay rate of the first moment; null keeps none, which is what saves the memory.
        scale_by_weights: multiply the rate by the root mean square of the weights, as in the paper (rates near 0.01);
            false makes the rate mean what it means to AdamW.
    """
    return split_by_decay(
        lambda decay: optim.Adafactor(
            learning_rate,
            clip_threshold=clip_update,
            beta_1=beta,
            weight_decay=decay,
            scale_parameter=scale_by_weights,
            relative_step=False,
        ),
        weight_decay,
    )


def lion(weight_decay: NonNegative, betas: Betas, *, learning_rate: float) -> optim.Optimizer:
    """Lion (Chen et al. 2023): the sign of a momentum. Wants a third to a tenth of AdamW's rate, and more decay.

    Args:
        weight_decay: decay of matrices and convolutions, times the rate.
        betas: how much of the momentum enters the update, and its own decay rate.
    """
    return split_by_decay(lambda decay: optim.Lion(learning_rate, betas=list(betas), weight_decay=decay), weight_decay)


def sgd(weight_decay: NonNegative, momentum: Share, nesterov: bool, *, learning_rate: float) -> optim.Optimizer:
    """Stochastic gradient descent with momentum. Wants a hundred times AdamW's rate.

    Args:
        weight_decay: added to the gradient of matrices and convolutions, times the weights.
        momentum: share of the last update that is kept.
        nesterov: look ahead along the momentum (Sutskever et al. 2013); needs some.
    """
    if nesterov and not momentum:
        raise ConfigError("trainer.optimizer.nesterov=true needs a momentum above 0")
    return split_by_decay(
        lambda decay: optim.SGD(learning_rate, momentum=momentum, weight_decay=decay, nesterov=nesterov), weight_decay
    )


def split_by_decay(new: Callable[[float], optim.Optimizer], weight_decay: float) -> optim.MultiOptimizer:
    """`new(weight_decay)` for the weights that are decayed, `new(0)` for the others."""
    return optim.MultiOptimizer([new(weight_decay), new(0.0)], [has_weight_decay])


def has_weight_decay(path: str, weight: mx.array) -> bool:
    return weight.ndim >= 2 and "embed" not in path


def assign_leaves(tree: Any, leaves: dict[str, mx.array], prefix: str = "") -> None:
    """Puts `leaves`, named as `tree_flatten` names them, into the present tree.

    Leaf by leaf: a rebuilt tree would lack the empty branches of layers without weights, and a compiled step goes on
    with the old one.

    Raises:
        ConfigError: one that the tree has is not among the leaves.
    """
    for name in list(tree) if isinstance(tree, dict) else range(len(tree)):
        path = f"{prefix}{name}"
        if isinstance(tree[name], dict | list):
            assign_leaves(tree[name], leaves, f"{path}.")
        elif isinstance(tree[name], mx.array):
            if path not in leaves:
                raise ConfigError(
                    f"the checkpoint's optimizer has no {path}: trainer.optimizer, trainer.ema and whether there is a"
                    " trainer.dynamic_batch may not change on resume"
                )
            tree[name] = leaves[path]


def flatten_arrays(tree: dict | list) -> dict[str, mx.array]:
    """The arrays of a state tree by path."""
    leaves: list[tuple[str, Any]] = tree_flatten(tree)  # type: ignore[assignment]
    return {path: leaf for path, leaf in leaves if isinstance(leaf, mx.array)}
