"""A weighted sum of losses."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.constraints import NonNegative
from mlxlab.data.batch import Batch
from mlxlab.errors import ConfigError
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.coefficient_schedule import LinearCoefficient, coefficient_arrays, coefficient_value
from mlxlab.training.losses.loss import Loss, LossTerms


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
            aux = {key.removeprefix(f"{name}."): v for key, v in batch.aux.items() if key.startswith(f"{name}.")}
            value, inner_terms = loss(shared, batch._replace(aux=aux))
            total = total + coefficient_value(self.weights[name], f"weight.{name}", batch) * value
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
        weights = {f"weight.{name}": weight for name, weight in self.weights.items()}
        return arrays | coefficient_arrays(weights, batch, progress)

    def flush(self) -> None:
        for loss in self.losses.values():
            loss.flush()


class CachedForward(nn.Module):
    """A model that computes its output once for a batch, however many losses call it.

    It lives as long as one call of the loss. It is an `nn.Module` without parameters of its own, so that a loss may
    use it as the model.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._tokens: mx.array | None = None
        self._output: mx.array | None = None

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        if self._output is None or self._tokens is not tokens:
            self._tokens, self._output = tokens, self._model(tokens, mask)
        return self._output


def unwrap(model: nn.Module) -> nn.Module:
    """The model itself, for a loss that captures the outputs of its layers and so needs a forward pass of its own."""
    return model._model if isinstance(model, CachedForward) else model
