"""Exponential moving average of the weights (Polyak and Juditsky 1992), which is evaluated and saved as the model.

The optimizer carries the average, so that a skipped step skips it too and a compiled step sees it. A checkpoint holds
the average as the model; the trained weights, from which a resumed run continues, are saved with the optimizer state.
"""

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_map

from mlxlab.training.optim.optimizers import Tree, assign_leaves, flatten_arrays

AVERAGE, TRAINED = "average.", "trained."  # prefixes in the optimizer state: in memory; in a checkpoint
Leaves = dict[str, mx.array]


class EMAOptimizer(optim.Optimizer):
    """Wraps an optimizer; after each of its steps average <- d average + (1 - d) weights.

    d is min(decay, (1 + n) / (10 + n)) after n steps, so that the initial weights do not dominate a short run.
    """

    def __init__(self, optimizer: optim.Optimizer, decay: float) -> None:
        super().__init__()
        self.optimizer, self.decay = optimizer, decay
        self._state = {"optimizer": optimizer.state, "average": {}, "count": {"steps": mx.array(0, mx.uint32)}}

    def init(self, parameters: Tree) -> None:
        self.optimizer.init(parameters)
        self.state["average"].update(tree_map(lambda leaf: mx.array(leaf), parameters))

    def apply_gradients(self, gradients: Tree, parameters: Tree) -> Tree:
        after = self.optimizer.apply_gradients(gradients, parameters)
        average, count = self.state["average"], self.state["count"]
        n = count["steps"].astype(mx.float32)
        d = mx.minimum(self.decay, (1 + n) / (10 + n))
        before, new = flatten_arrays(average), flatten_arrays(after)
        assign_leaves(average, {path: d * leaf + (1 - d) * new[path] for path, leaf in before.items()})
        count["steps"] = count["steps"] + 1
        return after

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
