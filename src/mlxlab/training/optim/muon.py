"""Muon (Jordan et al. 2024): the momentum of hidden matrices is orthogonalised by a Newton-Schulz iteration, no SVD."""

from collections.abc import Iterable
from typing import Literal, Unpack

import mlx.core as mx
import mlx.optimizers as optim

from mlxlab.schema.constraints import NonNegative, Positive, Share, Size
from mlxlab.training.optim.groups import (
    GroupOptions,
    LearningRate,
    OptimizerKind,
    grouped,
    has_weight_decay,
)
from mlxlab.training.optim.optimizers import NO_WEIGHTS, Betas, Tree, Weights

# The quintic polynomial is steep at 0, so that five iterations suffice.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


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

    def matrices(rate: LearningRate, decay: float) -> optim.Optimizer:
        return Muon(rate, decay, momentum, nesterov, ns_steps, scale)

    def others(rate: LearningRate, decay: float) -> optim.Optimizer:
        return optim.AdamW(
            rate, betas=list(betas), eps=eps, weight_decay=decay, bias_correction=True
        )

    kinds = [
        OptimizerKind(matrices, takes=is_hidden),
        OptimizerKind(others, lr_scale=adamw_lr_scale),
    ]
    return grouped(kinds, learning_rate, weight_decay, parameters, frozen, options)


def is_hidden(path: str, weight: mx.array) -> bool:
    """A matrix or convolution that is neither an embedding nor the output layer."""
    return has_weight_decay(path, weight) and not path.startswith("head.out")


class Muon(optim.Optimizer):
    """W <- (1 - lr decay) W - lr scale orthogonal(momentum); a convolution is a matrix (out, kernel size x in)."""

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
        direction = self.momentum * m + (1 - self.momentum) * gradient if self.nesterov else m
        matrix = direction.reshape(len(direction), -1)
        rows, columns = matrix.shape
        scale = (
            0.2 * max(rows, columns) ** 0.5
            if self.scale == "adamw"
            else max(1.0, rows / columns) ** 0.5
        )
        orthogonal = scale * newton_schulz(matrix, self.ns_steps).reshape(direction.shape)
        return (
            1 - self.learning_rate * self.weight_decay
        ) * parameter - self.learning_rate * orthogonal


def newton_schulz(matrix: mx.array, ns_steps: int) -> mx.array:
    """(M, N) -> (M, N) with the same singular vectors and values near 1: 0.7 to 1.2 after five iterations."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (mx.linalg.norm(x) + 1e-7)
    for _ in range(ns_steps):
        square = x @ x.T
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.T if tall else x
