"""Optimizers; the loop sets their `learning_rate` before every step.

Each gets `parameters`, the weights that are trained by path, the paths of those that are `frozen`, and the options of
`groups.py`.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, Unpack, cast

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_map

from mlxlab.checkpoint.arrays import Arrays
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import MaxLen, MinLen, NonNegative, Positive, Share, Size
from mlxlab.training.optim.groups import (
    GroupOptions,
    LearningRate,
    OptimizerKind,
    grouped,
    has_weight_decay,
)

Tree = dict[str, Any]  # nested arrays; MLX gives them no narrower type
Weights = Mapping[str, mx.array]  # path -> array
NO_WEIGHTS: Weights = {}
Betas = Annotated[list[Share], MinLen(2), MaxLen(2)]
# Muon: the quintic polynomial is steep at 0, so that five iterations suffice.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def adamw(
    weight_decay: NonNegative,
    betas: Betas,
    eps: Positive,
    *,
    learning_rate: float,
    parameters: Weights = NO_WEIGHTS,
    frozen: Iterable[str] = (),
    **options: Unpack[GroupOptions],
) -> optim.Optimizer:
    """AdamW with bias correction (Loshchilov and Hutter 2019).

    Args:
        weight_decay: decay of matrices and convolutions, multiplied by the learning rate.
        betas: decay rates of the first and second moment.
        eps: added to the root of the second moment.
    """
    new = partial(optim.AdamW, betas=list(betas), eps=eps, bias_correction=True)
    return grouped([OptimizerKind(new)], learning_rate, weight_decay, parameters, frozen, options)


def adafactor(
    weight_decay: NonNegative,
    clip_threshold: Positive,
    beta: Share | None,
    scale_parameter: bool,
    *,
    learning_rate: float,
    parameters: Weights = NO_WEIGHTS,
    frozen: Iterable[str] = (),
    **options: Unpack[GroupOptions],
) -> optim.Optimizer:
    """Adafactor (Shazeer and Stern 2018): stores only row and column means of a matrix's second moments.

    Args:
        weight_decay: decay of matrices and convolutions, multiplied by the learning rate.
        clip_threshold: maximum root mean square of a step, before the learning rate.
        beta: decay rate of the first moment; null stores none, which saves the memory.
        scale_parameter: multiply the learning rate by the root mean square of the weights, as in the paper (learning
            rates near 0.01); false gives the learning rate the same meaning as in AdamW.
    """
    new = partial(
        optim.Adafactor,
        clip_threshold=clip_threshold,
        beta_1=beta,
        scale_parameter=scale_parameter,
        relative_step=False,
    )
    return grouped([OptimizerKind(new)], learning_rate, weight_decay, parameters, frozen, options)


def lion(
    weight_decay: NonNegative,
    betas: Betas,
    *,
    learning_rate: float,
    parameters: Weights = NO_WEIGHTS,
    frozen: Iterable[str] = (),
    **options: Unpack[GroupOptions],
) -> optim.Optimizer:
    """Lion (Chen et al. 2023): the sign of a momentum. Needs a third to a tenth of AdamW's learning rate, more decay.

    Args:
        weight_decay: decay of matrices and convolutions, multiplied by the learning rate.
        betas: weight of the momentum in the step, and decay rate of the momentum.
    """
    new = partial(optim.Lion, betas=list(betas))
    return grouped([OptimizerKind(new)], learning_rate, weight_decay, parameters, frozen, options)


def sgd(
    weight_decay: NonNegative,
    momentum: Share,
    nesterov: bool,
    *,
    learning_rate: float,
    parameters: Weights = NO_WEIGHTS,
    frozen: Iterable[str] = (),
    **options: Unpack[GroupOptions],
) -> optim.Optimizer:
    """Stochastic gradient descent with momentum (Polyak 1964). Needs about a hundred times AdamW's learning rate.

    Args:
        weight_decay: added to the gradient of matrices and convolutions, times the weights.
        momentum: decay rate of the momentum.
        nesterov: look ahead along the momentum (Sutskever et al. 2013); needs a momentum above 0.
    """
    if nesterov and not momentum:
        raise ConfigError("trainer.optimizer.nesterov=true: expected a momentum above 0")
    new = partial(optim.SGD, momentum=momentum, nesterov=nesterov)
    return grouped([OptimizerKind(new)], learning_rate, weight_decay, parameters, frozen, options)


def assign_leaves(tree: Tree | list[object], leaves: Arrays) -> None:
    """Assigns `leaves`, by their paths as in `tree_flatten`, to the arrays of a nested dict or list, in place."""
    map_leaves(tree, lambda path, _: leaves[path])


def map_leaves(
    tree: Tree | list[object], function: Callable[[str, mx.array], mx.array], prefix: str = ""
) -> None:
    """Replaces the arrays of a nested dict or list one after the other by a function of their paths and themselves.

    In place: a rebuilt tree would lack the empty branches of layers without weights, and a compiled step would keep
    using the old one.
    """
    container: Any = tree
    keys: Iterable[Any] = range(len(tree))
    if isinstance(tree, dict):
        keys = list(tree)
    for key in keys:
        path = f"{prefix}{key}"
        if isinstance(container[key], dict | list):
            map_leaves(container[key], function, f"{path}.")
        elif isinstance(container[key], mx.array):
            container[key] = function(path, container[key])


def flatten_arrays(tree: Tree | list[object]) -> Arrays:
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
        self.optimizer = optimizer
        self.decay = decay
        self._state = {
            "optimizer": optimizer.state,
            "average": {},
            "count": {"steps": mx.array(0, mx.uint32)},
        }

    def init(self, parameters: Tree) -> None:
        self.optimizer.init(parameters)
        self.average.update(tree_map(lambda leaf: mx.array(leaf), parameters))

    def apply_gradients(self, gradients: Tree, parameters: Tree) -> Tree:
        after = self.optimizer.apply_gradients(gradients, parameters)
        self.add_to_average(after)
        return after

    def add_to_average(self, weights: Tree) -> None:
        """Counts a step that ended with these weights."""
        average = self.average
        count = self.state["count"]
        n = count["steps"].astype(mx.float32)
        d = mx.minimum(self.decay, (1 + n) / (10 + n))
        before = flatten_arrays(average)
        new = flatten_arrays(weights)
        assign_leaves(
            average, {path: d * leaf + (1 - d) * new[path] for path, leaf in before.items()}
        )
        count["steps"] = count["steps"] + 1

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


def muon(
    weight_decay: NonNegative,
    momentum: Share,
    nesterov: bool,
    ns_steps: Size,
    scale: Literal["adamw", "shape"],
    betas: Betas,
    eps: Positive,
    adamw_lr_scale: Positive,
    *,
    learning_rate: float,
    parameters: Weights = NO_WEIGHTS,
    frozen: Iterable[str] = (),
    **options: Unpack[GroupOptions],
) -> optim.Optimizer:
    """Muon for the matrices inside the network; AdamW for embeddings, the output layer, norms and biases.

    Args:
        weight_decay: decay of matrices and convolutions, multiplied by the learning rate.
        momentum: decay rate of the momentum.
        nesterov: look ahead along the momentum.
        ns_steps: Newton-Schulz iterations that orthogonalise the momentum.
        scale: adamw makes steps as large as AdamW's, so that its learning rates fit (Liu et al. 2025); shape is the
            original sqrt(max(1, rows / columns)), which needs learning rates near 0.02.
        betas: of AdamW, for all other weights.
        eps: of AdamW.
        adamw_lr_scale: learning rate of AdamW, as a multiple of that of the matrices.
    """
    matrices = partial(Muon, momentum=momentum, nesterov=nesterov, ns_steps=ns_steps, scale=scale)
    others = partial(optim.AdamW, betas=list(betas), eps=eps, bias_correction=True)
    kinds = [
        OptimizerKind(matrices, takes=is_hidden),
        OptimizerKind(others, lr_scale=adamw_lr_scale),
    ]
    return grouped(kinds, learning_rate, weight_decay, parameters, frozen, options)


def is_hidden(path: str, weight: mx.array) -> bool:
    """A matrix or convolution that is neither an embedding nor the output layer."""
    return has_weight_decay(path, weight) and not path.startswith("head.out")


class Muon(optim.Optimizer):
    """The momentum is orthogonalised by a Newton-Schulz iteration, no SVD (Jordan et al. 2024).

    W <- (1 - lr decay) W - lr scale orthogonal(momentum); a convolution is a matrix (out, kernel size x in).
    """

    def __init__(
        self,
        rate: LearningRate,
        weight_decay: float,
        momentum: float,
        nesterov: bool,
        ns_steps: int,
        scale: str,
    ) -> None:
        super().__init__()
        self._maybe_schedule("learning_rate", rate)
        self.weight_decay = weight_decay
        self.momentum = momentum
        self.nesterov = nesterov
        self.ns_steps = ns_steps
        self.scale = scale

    def init_single(self, parameter: mx.array, state: Tree) -> None:
        state["m"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: Tree) -> mx.array:
        m = self.momentum * state["m"] + (1 - self.momentum) * gradient
        state["m"] = m
        direction = m
        if self.nesterov:
            direction = self.momentum * m + (1 - self.momentum) * gradient
        matrix = direction.reshape(len(direction), -1)
        rows, columns = matrix.shape
        scale = max(1.0, rows / columns) ** 0.5
        if self.scale == "adamw":
            scale = 0.2 * max(rows, columns) ** 0.5
        orthogonal = scale * newton_schulz(matrix, self.ns_steps).reshape(direction.shape)
        decayed = (1 - self.learning_rate * self.weight_decay) * parameter
        return decayed - self.learning_rate * orthogonal


def newton_schulz(matrix: mx.array, ns_steps: int) -> mx.array:
    """(M, N) -> (M, N) with the same singular vectors and values near 1: 0.7 to 1.2 after five iterations."""
    if matrix.shape[0] > matrix.shape[1]:
        return newton_schulz(matrix.T, ns_steps).T
    a, b, c = COEFFICIENTS
    x = matrix / (mx.linalg.norm(matrix) + 1e-7)
    for _ in range(ns_steps):
        square = x @ x.T
        x = a * x + (b * square + c * (square @ square)) @ x
    return x
