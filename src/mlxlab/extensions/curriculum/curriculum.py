"""A curriculum by the distribution of tokens: the rows with the most neglected tokens are served first."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction as Exact
from math import ceil
from typing import Annotated

import numpy as np

from mlxlab.constraints import Fraction, Ge, Gt, Le, MaxLen, MinLen
from mlxlab.data.rng import Stream, counter_hash
from mlxlab.data.text.order.data_order import DataOrder
from mlxlab.data.text.order.distribution import TokenDistribution
from mlxlab.data.text.order.served_rows import Pool, ServedOrder
from mlxlab.data.text.order.token_counts import MAX_TOKENS
from mlxlab.data.text.packing import RowLayout
from mlxlab.errors import ConfigError

KEY = "data.order.alpha"
BLOCK_ROWS = 4096  # scored at a time, which bounds the memory
Point = Annotated[list[float], MinLen(2), MaxLen(2)]


@dataclass(frozen=True)
class CurriculumOrder(DataOrder):
    """Serves the rows of a pool by the sum over their tokens of target / (share among the tokens served so far).

    The target is (1 - alpha) times the corpus plus alpha times the uniform distribution.

    Args:
        alpha: strength, from 0 (the distribution of the corpus) to 1 (all tokens equally often); or a list of
            [start, alpha], each holding from its start on: a fraction of the run below 1, or a step.
        pool: candidate rows that are in memory at a time; the next ones follow when all are served.
        rescore_every: rows served between two scorings of the pool.
        once_per_epoch: every row is served once in an epoch; false serves only the best of each pool.
        keep: fraction of each pool that is served where `once_per_epoch` is false.
    """

    alpha: Fraction | list[Point]
    pool: Annotated[int, Ge(1), Le(1_000_000)]
    rescore_every: Annotated[int, Ge(1), Le(1_000_000)]
    once_per_epoch: bool
    keep: Annotated[float, Gt(0), Le(1)]
    measure: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.alpha, list):
            return
        starts = [start for start, _ in self.alpha]
        if any(not 0 <= alpha <= 1 for _, alpha in self.alpha):
            raise ConfigError(
                f"{KEY}: expected alphas from 0 to 1, got {[alpha for _, alpha in self.alpha]}"
            )
        if starts[:1] != [0] or starts != sorted(set(starts)):
            raise ConfigError(f"{KEY}: expected starts that rise from 0, got {starts}")
        if any(start >= 1 for start in starts) and any(start % 1 for start in starts):
            raise ConfigError(
                f"{KEY}: expected starts that are all fractions below 1 or all whole steps, got {starts}"
            )

    def check(self, mixture: Mapping[str, float] | None, row_buffer: int) -> None:
        if row_buffer:
            raise ConfigError(
                f"data.shuffle.row_buffer={row_buffer}: expected 0, a curriculum orders the rows"
            )

    def identity(self) -> dict[str, object]:
        keep = None if self.once_per_epoch else self.keep
        return {"curriculum": [self.alpha, self.pool, self.rescore_every, keep, MAX_TOKENS]}

    def measured_rows(
        self,
        distribution: TokenDistribution,
        layout: RowLayout,
        row_buffer: int,
        seed: int,
        steps: int | None,
    ) -> ServedOrder:
        """See `DataOrder`. ConfigError if `steps` is None and alpha depends on them."""
        points = self.alpha if isinstance(self.alpha, list) else [[0.0, self.alpha]]
        starts = np.array([start for start, _ in points])
        if (starts % 1).any():
            if steps is None:
                raise ConfigError(
                    f"{KEY}: fractions need the length of the run; set trainer.max_steps, or use steps"
                )
            starts *= steps
        alphas = [float(alpha) for _, alpha in points]
        return ServedOrder(
            NeglectRanking(self, distribution, seed, starts, alphas), distribution, layout
        )

    def rows_per_epoch(self, rows: int) -> int:
        pools, rest = divmod(rows, self.pool)
        return pools * self.rows_served(self.pool) + self.rows_served(rest)

    def rows_served(self, rows: int) -> int:
        """How many rows of a pool are served, at least one."""
        return (
            rows if self.once_per_epoch else ceil(rows * Exact(str(self.keep)))
        )  # floats would round 0.3 * 10 up


@dataclass(frozen=True)
class NeglectRanking:
    """Ranks rows by how neglected their tokens are; ties in a random order by `seed`. Implements `Ranking`."""

    options: CurriculumOrder
    distribution: TokenDistribution
    seed: int
    starts: np.ndarray  # (P,) steps from which each of `alphas` holds, rising from 0
    alphas: list[float]

    @property
    def pool_rows(self) -> int:
        return self.options.pool

    @property
    def rescore_every(self) -> int:
        return self.options.rescore_every

    def alpha(self, step: int) -> float:
        return float(self.alphas[int(np.searchsorted(self.starts, step, side="right")) - 1])

    def rows_served(self, rows: int) -> int:
        return self.options.rows_served(rows)

    def rank(self, pool: Pool, rows: np.ndarray, served: np.ndarray, alpha: float) -> np.ndarray:
        weights = np.append(
            self.distribution.weights(served, alpha, pool.tokens.shape[1]), 0
        )  # 0: padding
        blocks = np.array_split(rows, -(-len(rows) // BLOCK_ROWS))
        scores = np.concatenate([weights[pool.tokens[block]].sum(axis=1) for block in blocks])
        ties = counter_hash(self.seed, Stream.CURRICULUM_TIES, pool.epoch, pool.numbers[rows])
        return rows[np.lexsort((ties, -scores))]
