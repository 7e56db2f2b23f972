"""Logs the size of the weights."""

import math

import mlx.core as mx
from mlx.utils import tree_flatten
from mlxlab.schema.constraints import Size
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState


class WeightNorm(Callback):
    """Logs `weight_norm`, the Euclidean norm of all trained weights.

    A callback overrides the methods of `Callback` that it needs, and keeps no state that a resumed
    run would miss.

    Args:
        every_steps: steps between two values.
    """

    def __init__(self, every_steps: Size) -> None:
        self.every_steps = every_steps

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        if state.progress.step % self.every_steps == 0:
            arrays = [array for _, array in tree_flatten(state.model.trainable_parameters())]
            total = sum(mx.square(array).sum() for array in arrays)
            context.log(state, {"weight_norm": math.sqrt(total.item())})
