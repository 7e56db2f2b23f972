"""Selects training examples by their loss in an earlier run."""

import os
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from mlxlab.constraints import Gt, Le
from mlxlab.data import example_losses
from mlxlab.data.rng import Stream, counter_hash
from mlxlab.errors import ConfigError, DataError


@dataclass
class ExampleSelection:
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
            needed = "data.select.source: a run folder with per-example losses"
            raise ConfigError(f"data.select.mode={self.mode} needs {needed}")

    def chosen(self, seed: int, known: np.ndarray | None = None) -> np.ndarray | None:
        """The ids to train on, ascending, of those that are `known`; None for all.

        With mode=random they are a function of `seed`.

        Raises:
            InputNotFoundError, DataError: the source is missing, malformed, or has no loss of any of the ids.
            ConfigError: nothing says which ids there are.
        """
        if self.mode is None:
            return None
        ids, losses = self._losses(known)
        share = Fraction(str(self.percent)) / 100  # A float would round 33 up to 34.
        count = max(1, ceil(len(ids) * share))
        if self.mode == "random":
            losses = counter_hash(seed, Stream.SELECTION, ids)
        elif self.mode == "hardest":
            losses = -losses
        return np.sort(ids[np.lexsort((ids, losses))[:count]])

    def _losses(self, known: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Ids, and the loss of each (0 without a source)."""
        if self.source is None:
            if known is None or not len(known):
                way = "needs data.select.source here: the ids are not known before"
                raise ConfigError(f"data.select.mode=random {way}")
            return known, np.zeros(len(known))
        rows = example_losses.read(Path(os.path.expanduser(self.source)))
        losses = rows.get(self.score, np.full(len(rows["id"]), np.nan))
        usable = np.isfinite(losses)
        if known is not None:
            usable &= np.isin(rows["id"], known)
        if not usable.any():
            what = (
                f"none of its {len(losses):,} rows has a finite {self.score} of a training example"
            )
            raise DataError(f"{self.source}: {what} here; is it of other data?")
        return rows["id"][usable], losses[usable].astype(np.float64)
