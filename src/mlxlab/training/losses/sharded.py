"""The loss of a model whose weights are sharded among processes."""

from collections.abc import Callable

import mlx.nn as nn

from mlxlab.distributed.sharding import Sharding
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.loss import Loss, LossTerms

LossFunction = Callable[[nn.Module, DeviceBatch], LossTerms]


class ShardedLoss:
    """Another loss, computed while the weights of the model are gathered where they are needed."""

    def __init__(self, loss: Loss, sharding: Sharding) -> None:
        self.loss = loss
        self.sharding = sharding

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        with self.sharding.gathered(model):
            return self.loss(model, batch)

    def around(self, wrap: Callable[[Loss], LossFunction]) -> LossFunction:
        """`wrap(loss)` instead of the loss, which then finds whole weights in the model."""
        wrapped = wrap(self.loss)

        def compute(model: nn.Module, batch: DeviceBatch) -> LossTerms:
            with self.sharding.gathered(model):
                return wrapped(model, batch)

        return compute
