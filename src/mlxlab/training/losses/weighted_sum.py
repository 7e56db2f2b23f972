"""A weighted sum of losses, and coefficients of losses that change over a run."""

from collections.abc import Mapping
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.data.batch import Batch
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import Fraction, NonNegative
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.loss import Loss, LossTerms


@dataclass(frozen=True)
class LinearCoefficient:
    """Changes linearly from `start` to `end` over the first `fraction` of the run, then stays at `end`.

    Args:
        start: value at the first step.
        end: value once `fraction` of the run is done.
        fraction: fraction of the steps over which the value changes.
    """

    start: NonNegative
    end: NonNegative
    fraction: Fraction

    def __call__(self, fraction_done: float | None) -> float:
        """The value at this fraction of the run; raises ConfigError if it is unknown."""
        if fraction_done is None:
            raise ConfigError(
                "trainer.loss: LinearCoefficient needs the length of the run; set trainer.max_steps"
            )
        position = 1.0
        if self.fraction:
            position = min(fraction_done / self.fraction, 1.0)
        return self.start + (self.end - self.start) * position


Coefficient = float | LinearCoefficient


def coefficient_arrays(
    coefficients: Mapping[str, Coefficient], batch: Batch, fraction_done: float | None
) -> dict[str, np.ndarray]:
    """The value of each coefficient that changes, for each row, (B,) float32: arrays are inputs of the step."""
    rows = len(batch.example_ids)
    return {
        name: np.full(rows, coefficient(fraction_done), np.float32)
        for name, coefficient in coefficients.items()
        if isinstance(coefficient, LinearCoefficient)
    }


def coefficient_value(coefficient: Coefficient, name: str, batch: DeviceBatch) -> float | mx.array:
    """A number, or the array from `coefficient_arrays`, which broadcasts over the targets."""
    if isinstance(coefficient, LinearCoefficient):
        return batch.aux[name].reshape(-1, *[1] * (batch.targets.ndim - 1))
    return float(coefficient)


class WeightedSumLoss:
    """Sum of several losses of one forward pass. Each loss is logged as `train/loss_<name>`.

    Args:
        losses: the losses by name.
        weights: the weight of each loss, under the same name: a number or a LinearCoefficient.

    Raises:
        ConfigError: `losses` and `weights` have different names.
    """

    def __init__(
        self, losses: dict[str, Loss], weights: dict[str, NonNegative | LinearCoefficient]
    ) -> None:
        if losses.keys() != weights.keys():
            raise ConfigError(
                f"trainer.loss.weights: expected {', '.join(losses)}, got {', '.join(weights) or 'none'}"
            )
        self.losses = losses
        self.weights = weights

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        shared = CachedForward(model)
        total = mx.zeros(batch.targets.shape)
        terms = dict[str, mx.array]()
        for name, loss in self.losses.items():
            aux = {
                key.removeprefix(f"{name}."): v
                for key, v in batch.aux.items()
                if key.startswith(f"{name}.")
            }
            value, inner_terms = loss(shared, batch._replace(aux=aux))
            total = total + coefficient_value(self.weights[name], f"weight.{name}", batch) * value
            terms = inner_terms | terms | {f"loss_{name}": value}
        return LossTerms(total, terms)

    def annotate(self, batch: Batch, fraction_done: float | None) -> dict[str, np.ndarray]:
        """The arrays of each loss under `<name>.`, and the current values of weights that change."""
        arrays = {
            f"{name}.{key}": values
            for name, loss in self.losses.items()
            for key, values in loss.annotate(batch, fraction_done).items()
        }
        weights = {f"weight.{name}": weight for name, weight in self.weights.items()}
        return arrays | coefficient_arrays(weights, batch, fraction_done)

    def flush(self) -> None:
        for loss in self.losses.values():
            loss.flush()


class CachedForward(nn.Module):
    """A model that computes its output once for a batch, however many losses call it; without parameters of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._tokens: mx.array | None = None
        self._output: mx.array | None = None

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        if self._output is None or self._tokens is not tokens:
            self._tokens, self._output = tokens, self._model(tokens, mask)
        return self._output
