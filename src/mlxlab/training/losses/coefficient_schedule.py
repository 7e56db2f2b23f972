"""Loss coefficients that change over a run."""

from collections.abc import Mapping

import mlx.core as mx
import numpy as np

from mlxlab.constraints import Fraction, NonNegative
from mlxlab.data.batch import Batch
from mlxlab.errors import ConfigError
from mlxlab.training.device_batch import DeviceBatch


class LinearCoefficient:
    """Changes linearly from `start` to `end` over the first `fraction` of the run, then stays at `end`.

    Args:
        start: value at the first step.
        end: value once `fraction` of the run is done.
        fraction: fraction of the steps over which the value changes.
    """

    def __init__(self, start: NonNegative, end: NonNegative, fraction: Fraction) -> None:
        self.start, self.end, self.fraction = start, end, fraction

    def __call__(self, progress: float | None) -> float:
        """The value at `progress`, the fraction of the run that is done.

        Raises:
            ConfigError: `progress` is None: the length of the run is unknown.
        """
        if progress is None:
            raise ConfigError("trainer.loss: LinearCoefficient needs the length of the run; set trainer.max_steps")
        position = min(progress / self.fraction, 1.0) if self.fraction else 1.0
        return self.start + (self.end - self.start) * position


Coefficient = float | LinearCoefficient


def coefficient_arrays(
    coefficients: Mapping[str, Coefficient], batch: Batch, progress: float | None
) -> dict[str, np.ndarray]:
    """The present value of each coefficient that changes, repeated for each row, (B,) float32.

    An array is an input of a compiled step, a number is not.
    """
    rows = len(batch.example_ids)
    return {
        name: np.full(rows, coefficient(progress), np.float32)
        for name, coefficient in coefficients.items()
        if isinstance(coefficient, LinearCoefficient)
    }


def coefficient_value(coefficient: Coefficient, name: str, batch: DeviceBatch) -> float | mx.array:
    """A number, or the array from `coefficient_arrays`, which broadcasts over the targets."""
    if isinstance(coefficient, LinearCoefficient):
        return batch.aux[name].reshape(-1, *[1] * (batch.targets.ndim - 1))
    return float(coefficient)
