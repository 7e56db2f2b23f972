"""Documents in a random order, whose served tokens are compared with those of the corpus."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlxlab.data.rng import Stream, permutation
from mlxlab.data.text.order import DataOrder
from mlxlab.data.text.packing import RowLayout
from mlxlab.data.text.token_counts import TokenCounts
from mlxlab.extensions.curriculum.distribution import TokenDistribution
from mlxlab.extensions.curriculum.served_rows import Pool, ServedOrder

MEASURED_ROWS = 1024  # The size of a pool whose rows stay in the order of the text.


@dataclass(frozen=True)
class MeasuredOrder(DataOrder):
    """The order of `shuffle`; logs how far the tokens served are from those of the corpus."""

    min_steps = 0

    def arrange_rows(
        self,
        count_tokens: Callable[[], TokenCounts],
        layout: RowLayout,
        row_buffer: int,
        seed: int,
        steps: int | None,
    ) -> ServedOrder:
        """See `DataOrder`."""
        ranking = TextRanking(row_buffer, seed)
        distribution = TokenDistribution(count_tokens())
        return ServedOrder(ranking, distribution, layout, fixed_alpha=True)


@dataclass(frozen=True)
class TextRanking:
    """The order of `RandomRows`. Implements `Ranking`.

    Args:
        size: rows that are permuted together by `seed`; 0 permutes none.
    """

    size: int
    seed: int
    rescore_every: int | None = None

    @property
    def pool_rows(self) -> int:
        return self.size or MEASURED_ROWS

    def alpha(self, step: int) -> float:
        return 0.0

    def rows_served(self, rows: int) -> int:
        return rows

    def rank(self, pool: Pool, rows: np.ndarray, served: np.ndarray, alpha: float) -> np.ndarray:
        if not self.size:
            return rows
        return permutation(len(rows), self.seed, Stream.ROW_SHUFFLE, pool.epoch, pool.row)
