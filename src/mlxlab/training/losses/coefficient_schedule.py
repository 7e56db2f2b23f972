"""Loss coefficients that change over a run."""

import numpy as np

from mlxlab.constraints import Fraction, NonNegative
from mlxlab.data.batch import Batch
from mlxlab.errors import ConfigError


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

    def per_row(self, batch: Batch, progress: float | None) -> np.ndarray:
        """The value repeated for each row, (B,) float32: an array is an input of a compiled step, a number is not."""
        return np.full(len(batch.example_ids), self(progress), np.float32)
