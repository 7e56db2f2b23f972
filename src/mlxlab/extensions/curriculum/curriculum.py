"""Orders by the distribution of tokens: rows with the most neglected ones first, or a measured random order."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction as Exact
from functools import partial
from math import ceil
from typing import Annotated

import numpy as np

from mlxlab.data.rng import Stream, counter_hash, permutation
from mlxlab.data.text.order import MAX_TOKENS, DataOrder, TokenCounts
from mlxlab.data.text.packing import RowLayout
from mlxlab.errors import ConfigError
from mlxlab.extensions.curriculum.served_rows import Pool, Ranking, ServedOrder, TokenDistribution
from mlxlab.schema.constraints import Fraction, Ge, Gt, Le, MaxLen, MinLen

KEY = "data.order.alpha"
MEASURED_ROWS = 1024  # The size of a pool whose rows stay in the order of the text.
BLOCK_ROWS = 4096  # Rows scored at a time, which bounds the memory.
Point = Annotated[list[float], MinLen(2), MaxLen(2)]


@dataclass(frozen=True)
class CurriculumOrder(DataOrder):
    """Serves the rows of a pool by the sum over their tokens of target / (share served so far).

    The target is (1 - alpha) times the corpus plus alpha times the uniform distribution.

    Args:
        alpha: strength, from 0 (the distribution of the corpus) to 1 (all tokens equally often);
            or a list of [start, alpha], each holding from its start on: a fraction of the run
            below 1, or a step.
        pool: candidate rows that are in memory at a time; the next ones follow when all are served.
        rescore_every: rows served between two scorings of the pool.
        keep: fraction of each pool that is served, the best rows; 1 serves every row once in an epoch.
    """

    alpha: Fraction | list[Point]
    pool: Annotated[int, Ge(1), Le(1_000_000)]
    rescore_every: Annotated[int, Ge(1), Le(1_000_000)]
    keep: Annotated[float, Gt(0), Le(1)]
    min_steps = 0  # The schedule of alpha is that of five epochs.

    def __post_init__(self) -> None:
        points = self.points
        starts = [start for start, _ in points]
        is_rising = starts[:1] == [0] and starts == sorted(set(starts))
        if not is_rising or any(not 0 <= alpha <= 1 for _, alpha in points):
            raise ConfigError(f"{KEY}: expected [start, alpha], from 0 on, got {points}")
        if starts[-1] >= 1 and any(start % 1 for start in starts):
            raise ConfigError(f"{KEY}: expected fractions below 1 or whole steps, got {starts}")

    @property
    def points(self) -> list[list[float]]:
        return self.alpha if isinstance(self.alpha, list) else [[0.0, self.alpha]]

    def identity(self) -> dict[str, object]:
        options = [self.alpha, self.pool, self.rescore_every, self.keep, MAX_TOKENS]
        return {"curriculum": options}

    def arrange_rows(
        self,
        count_tokens: Callable[[], TokenCounts],
        layout: RowLayout,
        row_buffer: int,
        seed: int,
        steps: int | None,
    ) -> ServedOrder:
        """See `DataOrder`. ConfigError if `steps` is None and alpha depends on them."""
        if row_buffer:
            raise ConfigError(f"data.shuffle.row_buffer={row_buffer}: expected 0 with a curriculum")
        starts = np.array([start for start, _ in self.points])
        if (starts % 1).any():
            if steps is None:
                raise ConfigError(f"{KEY}: fractions need the length of the run: trainer.max_steps")
            starts *= steps
        distribution = TokenDistribution(count_tokens())
        ranking = Ranking(
            pool_rows=self.pool,
            rescore_every=self.rescore_every,
            rows_served=self.rows_served,
            rank=partial(rank_by_neglect, distribution, seed),
            starts=starts,
            alphas=[float(alpha) for _, alpha in self.points],
        )
        return ServedOrder(ranking, distribution, layout)

    def rows_per_epoch(self, rows: int) -> int:
        pools, rest = divmod(rows, self.pool)
        return pools * self.rows_served(self.pool) + self.rows_served(rest)

    def rows_served(self, rows: int) -> int:
        """How many rows of a pool are served, at least one."""
        return ceil(rows * Exact(str(self.keep)))  # A float would round 0.3 * 10 up.


def rank_by_neglect(
    distribution: TokenDistribution,
    seed: int,
    pool: Pool,
    rows: np.ndarray,
    served: np.ndarray,
    alpha: float,
) -> np.ndarray:
    """Rows by how neglected their tokens are; `seed` breaks ties."""
    weights = distribution.weights(served, alpha, pool.tokens.shape[1])  # (V,)
    weights = np.append(weights, 0)  # Padding, id V, has no weight.
    blocks = np.array_split(rows, -(-len(rows) // BLOCK_ROWS))
    scores = np.concatenate([weights[pool.tokens[block]].sum(axis=1) for block in blocks])
    ties = counter_hash(seed, Stream.CURRICULUM_TIES, pool.epoch, pool.numbers[rows])
    return rows[np.lexsort((ties, -scores))]


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

        def rank(pool: Pool, rows: np.ndarray, served: np.ndarray, alpha: float) -> np.ndarray:
            if not row_buffer:
                return rows
            return permutation(len(rows), seed, Stream.ROW_SHUFFLE, pool.epoch, pool.row)

        ranking = Ranking(row_buffer or MEASURED_ROWS, None, rows_served=int, rank=rank)
        distribution = TokenDistribution(count_tokens())
        return ServedOrder(ranking, distribution, layout)
