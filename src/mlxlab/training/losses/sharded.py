"""The loss of a model whose weights are sharded among processes."""

from collections.abc import Callable
from dataclasses import dataclass

import mlx.nn as nn

from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.distributed.sharding import Sharding
from mlxlab.training.losses.loss import LossTerms

LossFunction = Callable[[nn.Module, DeviceBatch], LossTerms]


@dataclass(frozen=True)
class ShardedLoss:
    """Another loss, which finds whole weights in the model: they are gathered where they are needed."""

    loss: LossFunction
    sharding: Sharding

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        with self.sharding.gathered(model):
            return self.loss(model, batch)
