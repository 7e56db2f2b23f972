"""The order of the text, in which neighbouring rows may be permuted; the tokens served can be measured."""

from dataclasses import dataclass

import numpy as np

from mlxlab.data.rng import Stream, permutation
from mlxlab.data.text.order.distribution import TokenDistribution
from mlxlab.data.text.order.served_rows import Pool, ServedOrder
from mlxlab.data.text.packing import RowLayout

MEASURED_ROWS = 1024  # of a pool whose rows stay in the order of the text


@dataclass(frozen=True)
class ShuffleOrder:
    """Documents in a random order, another one in each epoch.

    Args:
        measure: log how far the tokens served are from those of the corpus, and how many of its rare tokens were.
    """

    measure: bool


@dataclass(frozen=True)
class TextRanking:
    """The order of `RandomRows`. Implements `Ranking`."""

    size: int  # rows that are permuted together by `seed`; 0 permutes none
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


def text_rows(
    distribution: TokenDistribution, layout: RowLayout, row_buffer: int, seed: int
) -> ServedOrder:
    """The order of `RandomRows`, whose tokens are compared with `distribution`."""
    return ServedOrder(TextRanking(row_buffer, seed), distribution, layout, fixed_alpha=True)
