"""A setting of a loss that changes over the run."""

import numpy as np

from mlxlab.constraints import Fraction, NonNegative
from mlxlab.data.batch import Batch
from mlxlab.errors import ConfigError


class LinearCoefficient:
    """A straight line from `start` to `end`, which is reached after `share` of the run and kept.

    Args:
        start: value at the first update.
        end: value from `share` of the run on.
        share: part of all updates that the way takes.
    """

    def __init__(self, start: NonNegative, end: NonNegative, share: Fraction) -> None:
        self.start, self.end, self.share = start, end, share

    def __call__(self, progress: float | None) -> float:
        """The value at a part of the run, 0 to 1; ConfigError where the run has no known length."""
        if progress is None:
            raise ConfigError("a ramp of trainer.loss needs the length of the run; set trainer.max_steps")
        way = min(progress / self.share, 1.0) if self.share else 1.0
        return self.start + (self.end - self.start) * way

    def rows(self, batch: Batch, progress: float | None) -> np.ndarray:
        """The value for each row of a batch: (B,). An array, so that a compiled step sees it change."""
        return np.full(len(batch.ids), self(progress), np.float32)
