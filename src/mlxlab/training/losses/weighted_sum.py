"""A loss that is the sum of others."""

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.constraints import NonNegative
from mlxlab.data.batch import Batch
from mlxlab.errors import ConfigError
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.coefficient_schedule import LinearCoefficient
from mlxlab.training.losses.loss import Loss, LossTerms


class WeightedSumLoss:
    """Several losses of the same forward pass, each times its weight.

    Args:
        losses: what is added up.
        weights: one per loss: numbers, or ramps over the run.
    """

    def __init__(self, losses: list[Loss], weights: list[NonNegative | LinearCoefficient]) -> None:
        if len(losses) != len(weights):
            raise ConfigError(f"trainer.loss.weights: {len(weights)} for {len(losses)} losses")
        self.losses, self.weights = losses, weights

    def __call__(self, model: nn.Module, batch: DeviceBatch) -> LossTerms:
        shared: Any = _CachedForward(model)
        total, parts = mx.zeros(batch.targets.shape), dict[str, mx.array]()
        for place, (loss, weight) in enumerate(zip(self.losses, self.weights, strict=True)):
            own = batch._replace(extra=_inside(batch.extra, place))
            # Layers can be watched only in a forward pass of their own.
            values = loss(model if getattr(loss, "pairs", None) else shared, own)
            named = values.parts if isinstance(values, LossTerms) else {}
            values = values.values if isinstance(values, LossTerms) else values
            scale: Any = batch.extra[f"weight.{place}"] if isinstance(weight, LinearCoefficient) else weight
            scale = scale.reshape(-1, *[1] * (values.ndim - 1)) if isinstance(weight, LinearCoefficient) else scale
            total = total + scale * values
            parts |= {name: part for name, part in named.items() if name not in parts}
            parts[f"loss_{place}"] = values
        return LossTerms(total, parts)

    def attach(self, model: nn.Module, seed: int) -> None:
        for loss in self.losses:
            if hasattr(loss, "attach"):
                loss.attach(model, seed)

    def prepare(self, batch: Batch, progress: float | None) -> dict[str, np.ndarray]:
        """What each loss wants beside the batch, under its place in the list."""
        extra = {
            f"weight.{place}": weight.rows(batch, progress)
            for place, weight in enumerate(self.weights)
            if isinstance(weight, LinearCoefficient)
        }
        for place, loss in enumerate(self.losses):
            own = loss.prepare(batch, progress) if hasattr(loss, "prepare") else {}
            extra |= {f"{place}.{name}": values for name, values in own.items()}
        return extra


def _inside(extra: dict[str, mx.array], place: int) -> dict[str, mx.array]:
    start = f"{place}."
    return {name.removeprefix(start): values for name, values in extra.items() if name.startswith(start)}


class _CachedForward:
    """A model that is asked once for each batch."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._said: tuple[mx.array, mx.array] | None = None

    def __call__(self, tokens: mx.array, mask: mx.array) -> mx.array:
        if self._said is None or self._said[0] is not tokens:
            self._said = (tokens, self._model(tokens, mask))
        return self._said[1]
