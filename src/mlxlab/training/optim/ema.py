"""An exponential moving average of the weights: what is evaluated, and kept as the model (Polyak and Juditsky 1992).

The optimizer carries the average, so that a skipped update skips it too and a compiled step sees it. In a checkpoint
`model.safetensors` holds the average, which is what the metrics are of and what everything later loads; the weights
that training goes on with lie beside the optimizer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map

from mlxlab.training.optim.optimizers import assign_leaves, flatten_arrays

AVERAGE, TRAINED = "average.", "trained."  # in memory; in a checkpoint
Leaves = dict[str, mx.array]


class EMAOptimizer(optim.Optimizer):
    """Any optimizer, and after each of its updates average <- d average + (1 - d) weights.

    d is min(decay, (1 + n) / (10 + n)) after n updates: a short run is not an average of where it started.
    """

    def __init__(self, optimizer: optim.Optimizer, decay: float) -> None:
        super().__init__()
        self.optimizer, self.decay = optimizer, decay
        self._average: dict[str, Any] = {}
        self._count = {"updates": mx.array(0, mx.uint32)}

    def init(self, parameters: dict) -> None:
        self.optimizer.init(parameters)
        self._average.update(tree_map(lambda leaf: mx.array(leaf), parameters))

    def apply_gradients(self, gradients: dict, parameters: dict) -> dict:
        after = self.optimizer.apply_gradients(gradients, parameters)
        n = self._count["updates"].astype(mx.float32)
        d = mx.minimum(self.decay, (1 + n) / (10 + n))
        before, new = flatten_arrays(self._average), flatten_arrays(after)
        assign_leaves(self._average, {path: d * leaf + (1 - d) * new[path] for path, leaf in before.items()})
        self._count["updates"] = self._count["updates"] + 1
        return after

    @property
    def learning_rate(self) -> mx.array:
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: float | mx.array) -> None:
        self.optimizer.learning_rate = learning_rate

    @property
    def state(self) -> dict:
        return {"optimizer": self.optimizer.state, "average": self._average, "count": self._count}

    @state.setter
    def state(self, state: dict) -> None:
        raise AttributeError("fill the leaves of the present state instead")


@contextmanager
def use_ema_weights(model: nn.Module, optimizer: optim.Optimizer) -> Iterator[None]:
    """Inside, the model has the averaged weights, where there are such."""
    average = optimizer.state.get("average") if isinstance(optimizer, EMAOptimizer) else None
    if average is None:
        yield
        return
    before = model.trainable_parameters()
    model.update(average)
    try:
        yield
    finally:
        model.update(before)


def swap_for_save(weights: Leaves, optimizer: Leaves) -> tuple[Leaves, Leaves]:
    """The weights as they are saved, the average if there is one, and the rest."""
    return _exchanged(weights, optimizer, AVERAGE, TRAINED)


def swap_for_load(weights: Leaves, optimizer: Leaves) -> tuple[Leaves, Leaves]:
    """What `to_files` made, turned back."""
    return _exchanged(weights, optimizer, TRAINED, AVERAGE)


def _exchanged(weights: Leaves, optimizer: Leaves, there: str, here: str) -> tuple[Leaves, Leaves]:
    found = {path.removeprefix(there): leaf for path, leaf in optimizer.items() if path.startswith(there)}
    rest = {path: leaf for path, leaf in optimizer.items() if not path.startswith(there)}
    return weights | found, rest | {here + path: weights[path] for path in found}
