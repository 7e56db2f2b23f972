"""A weighted sum of losses."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.constraints import NonNegative
from mlxlab.data.batch import Batch
from mlxlab.errors import ConfigError
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.cached_forward import CachedForward
from mlxlab.training.losses.coefficient_schedule import LinearCoefficient
from mlxlab.training.losses.loss import Loss, LossTerms

_WEIGHT = "weight"


class WeightedSumLoss:
    """Sum of several losses of one forward pass. Each loss is logged as `train/loss_<name>`.

    Args:
        losses: the losses by name.
        weights: the weight of each loss, under the same name: a number or a LinearCoefficient.

    Raises:
        ConfigError: `losses` and `weights` have different names.
    """

    def __init__(self, losses: dict[str, Loss], weights: dict[str, NonNegative | LinearCoefficient]) -> None:
        if losses.keys() != weights.keys():
            raise ConfigError(f"trainer.loss.weights: expected {', '.join(losses)}, got {', '.join(weights) or 'none'}")
        self.losses, self.weights = losses, weights

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        shared = CachedForward(model)
        total, terms = mx.zeros(batch.targets.shape), dict[str, mx.array]()
        for name, loss in self.losses.items():
            value, inner_terms = loss(shared, batch._replace(aux=_select(batch.aux, name)))
            total = total + self._weight(name, batch) * value
            terms = inner_terms | terms | {f"loss_{name}": value}
        return LossTerms(total, terms)

    def setup(self, model: nn.Module, seed: int) -> None:
        for loss in self.losses.values():
            loss.setup(model, seed)

    def annotate(self, batch: Batch, progress: float | None) -> dict[str, np.ndarray]:
        """The arrays of each loss under `<name>.`, and the current values of weights that change."""
        arrays = {
            f"{name}.{key}": values
            for name, loss in self.losses.items()
            for key, values in loss.annotate(batch, progress).items()
        }
        weights = {
            f"{_WEIGHT}.{name}": weight.per_row(batch, progress)
            for name, weight in self.weights.items()
            if isinstance(weight, LinearCoefficient)
        }
        return arrays | weights

    def flush(self) -> None:
        for loss in self.losses.values():
            loss.flush()

    def _weight(self, name: str, batch: DeviceBatch) -> float | mx.array:
        weight = self.weights[name]
        if not isinstance(weight, LinearCoefficient):
            return weight
        return batch.aux[f"{_WEIGHT}.{name}"].reshape(-1, *[1] * (batch.targets.ndim - 1))


def _select(arrays: dict[str, mx.array], name: str) -> dict[str, mx.array]:
    prefix = f"{name}."
    return {key.removeprefix(prefix): values for key, values in arrays.items() if key.startswith(prefix)}
