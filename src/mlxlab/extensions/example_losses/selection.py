"""Selects training examples by their loss in an earlier run."""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Annotated, Literal

import numpy as np

from mlxlab.data.rng import Stream, counter_hash
from mlxlab.errors import ConfigError, DataError
from mlxlab.extensions.example_losses import files
from mlxlab.schema.constraints import Gt, Le


@dataclass
class LossSelection:
    """Keeps `ceil(n * percent / 100)` of n examples, at least one; of equal scores the smaller id.

    Args:
        mode: hardest, easiest or random; null keeps all.
        percent: of the examples whose loss is known.
        score: mean or sum of the loss over an example's targets, or mean KL to the teacher. By sum, long examples are
            the hardest.
        source: a run folder with per-example losses, or a Parquet file of them; random needs none. `previous` is the
            previous round, in a run of several rounds; the first round then trains on everything.
    """

    mode: Literal["hardest", "easiest", "random"] | None
    percent: Annotated[float, Gt(0), Le(100)]
    score: Literal["mean", "sum", "kl"]
    source: str | None

    def __post_init__(self) -> None:
        if self.mode in ("hardest", "easiest") and self.source is None:
            raise ConfigError(
                f"data.select.mode={self.mode}: expected data.select.source, got null"
            )

    def chosen(self, seed: int, known: np.ndarray | None = None) -> np.ndarray | None:
        """See `ExampleSelection`. With mode=random the ids are a function of `seed`."""
        if self.mode is None:
            return None
        ids, losses = self._losses(known)
        share = Fraction(str(self.percent)) / 100  # A float would round 33 up to 34.
        count = ceil(len(ids) * share)
        if self.mode == "random":
            losses = counter_hash(seed, Stream.SELECTION, ids)
        elif self.mode == "hardest":
            losses = -losses
        return np.sort(ids[np.lexsort((ids, losses))[:count]])

    def _losses(self, known: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Ids, and the loss of each (0 without a source)."""
        if self.source is None:
            if known is None or not len(known):
                raise ConfigError("data.select.mode=random: expected data.select.source here")
            return known, np.zeros(len(known))
        ids, losses = files.read_finite(self.source, self.score)
        if known is None:
            return ids, losses
        is_known = np.isin(ids, known)
        if not is_known.any():
            raise DataError(f"{self.source}: expected losses of training examples, got other data")
        return ids[is_known], losses[is_known]
