"""Optimizers; the loop sets their `learning_rate` before every step. Norms, biases and embeddings are not decayed."""

from collections.abc import Callable
from typing import Annotated, Any, cast

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_map

from mlxlab.constraints import MaxLen, MinLen, NonNegative, Positive, Share
from mlxlab.errors import ConfigError

Tree = dict[str, Any]  # of arrays, nested; MLX gives it no narrower type
Leaves = dict[str, mx.array]
AVERAGE, TRAINED = "average.", "trained."  # prefixes in the optimizer state: in memory; in a checkpoint
Betas = Annotated[list[Share], MinLen(2), MaxLen(2)]


def adamw(weight_decay: NonNegative, betas: Betas, eps: Positive, *, learning_rate: float) -> optim.Optimizer:
    """AdamW with bias correction (Loshchilov and Hutter 2019).

    Args:
        weight_decay: decay of matrices and convolutions, multiplied by the learning rate.
        betas: decay rates of the first and second moment.
        eps: added to the root of the second moment.
    """
    return split_by_decay(
        lambda decay: optim.AdamW(learning_rate, betas=list(betas), eps=eps, weight_decay=decay, bias_correction=True),
        weight_decay,
    )


def adafactor(
    weight_decay: NonNegative,
    clip_threshold: Positive,
    beta: Share | None,
    scale_parameter: bool,
    *,
    learning_rate: float,
) -> optim.Optimizer:
    """Adafactor (Shazeer and Stern 2018): stores only row and column means of a matrix's second moments.

    Args:
        weight_decay: decay of matrices and convolutions, multiplied by the learning rate.
        clip_threshold: maximum root mean square of a step, before the learning rate.
        beta: decay rate of the first moment; null stores none, which saves the memory.
        scale_parameter: multiply the learning rate by the root mean square of the weights, as in the paper (learning
            rates near 0.01); false gives the learning rate the same meaning as in AdamW.
    """
    return split_by_decay(
        lambda decay: optim.Adafactor(
            learning_rate,
            clip_threshold=clip_threshold,
            beta_1=beta,
            weight_decay=decay,
            scale_parameter=scale_parameter,
            relative_step=False,
        ),
        weight_decay,
    )


def lion(weight_decay: NonNegative, betas: Betas, *, learning_rate: float) -> optim.Optimizer:
    """Lion (Chen et al. 2023): the sign of a momentum. Needs a third to a tenth of AdamW's learning rate, more decay.

    Args:
        weight_decay: decay of matrices and convolutions, multiplied by the learning rate.
        betas: weight of the momentum in the step, and decay rate of the momentum.
    """
    return split_by_decay(lambda decay: optim.Lion(learning_rate, betas=list(betas), weight_decay=decay), weight_decay)


def sgd(weight_decay: NonNegative, momentum: Share, nesterov: bool, *, learning_rate: float) -> optim.Optimizer:
    """Stochastic gradient descent with momentum (Polyak 1964). Needs about a hundred times AdamW's learning rate.

    Args:
        weight_decay: added to the gradient of matrices and convolutions, times the weights.
        momentum: decay rate of the momentum.
        nesterov: look ahead along the momentum (Sutskever et al. 2013); needs a momentum above 0.
    """
    if nesterov and not momentum:
        raise ConfigError("trainer.optimizer.nesterov=true: expected a momentum above 0")
    return split_by_decay(
        lambda decay: optim.SGD(learning_rate, momentum=momentum, weight_decay=decay, nesterov=nesterov), weight_decay
    )


def split_by_decay(new: Callable[[float], optim.Optimizer], weight_decay: float) -> optim.MultiOptimizer:
    """`new(weight_decay)` for weights that are decayed, `new(0)` for the others."""
    return optim.MultiOptimizer([new(weight_decay), new(0.0)], [has_weight_decay])


def has_weight_decay(path: str, weight: mx.array) -> bool:
    return weight.ndim >= 2 and "embed" not in path


def assign_leaves(tree: Tree | list[object], leaves: dict[str, mx.array], prefix: str = "") -> None:
    """Assigns `leaves`, by their paths as in `tree_flatten`, to the arrays of a nested dict or list.

    In place: a rebuilt tree would lack the empty branches of layers without weights, and a compiled step would keep
    using the old one.
    """
    container: Any = tree
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        path = f"{prefix}{key}"
        if isinstance(container[key], dict | list):
            assign_leaves(container[key], leaves, f"{path}.")
        elif isinstance(container[key], mx.array):
            container[key] = leaves[path]


def flatten_arrays(tree: Tree | list[object]) -> dict[str, mx.array]:
    """The arrays of a nested dict or list by path."""
    leaves = cast(list[tuple[str, object]], tree_flatten(tree))
    return {path: leaf for path, leaf in leaves if isinstance(leaf, mx.array)}


class EMAOptimizer(optim.Optimizer):
    """Wraps an optimizer; after each of its steps average <- d average + (1 - d) weights (Polyak and Juditsky 1992).

    d is min(decay, (1 + n) / (10 + n)) after n steps, so that the initial weights do not dominate a short run. The
    average is evaluated and saved as the model; the trained weights are saved with the optimizer state. As it is part
    of the optimizer, a skipped step skips it too and a compiled step sees it.
    """

    def __init__(self, optimizer: optim.Optimizer, decay: float) -> None:
        super().__init__()
        self.optimizer, self.decay = optimizer, decay
        self._state = {"optimizer": optimizer.state, "average": {}, "count": {"steps": mx.array(0, mx.uint32)}}

    def init(self, parameters: Tree) -> None:
        self.optimizer.init(parameters)
        self.average.update(tree_map(lambda leaf: mx.array(leaf), parameters))

    def apply_gradients(self, gradients: Tree, parameters: Tree) -> Tree:
        after = self.optimizer.apply_gradients(gradients, parameters)
        average, count = self.average, self.state["count"]
        n = count["steps"].astype(mx.float32)
        d = mx.minimum(self.decay, (1 + n) / (10 + n))
        before, new = flatten_arrays(average), flatten_arrays(after)
        assign_leaves(average, {path: d * leaf + (1 - d) * new[path] for path, leaf in before.items()})
        count["steps"] = count["steps"] + 1
        return after

    @property
    def average(self) -> Tree:
        """The moving average of the weights, as a tree like theirs."""
        return cast(Tree, self.state["average"])

    @property
    def learning_rate(self) -> mx.array:
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: float | mx.array) -> None:
        self.optimizer.learning_rate = learning_rate


def swap_weights(weights: Leaves, optimizer: Leaves, old: str, new: str) -> tuple[Leaves, Leaves]:
    """Exchanges the weights with the leaves of the optimizer under `old`; the replaced weights are under `new`.

    From AVERAGE to TRAINED gives what is saved, from TRAINED to AVERAGE restores it.
    """
    swapped = {path.removeprefix(old): leaf for path, leaf in optimizer.items() if path.startswith(old)}
    unchanged = {path: leaf for path, leaf in optimizer.items() if not path.startswith(old)}
    return weights | swapped, unchanged | {new + path: weights[path] for path in swapped}
