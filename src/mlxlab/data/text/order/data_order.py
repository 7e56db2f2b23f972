"""The interface of `data/order`: what comes first in training text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlxlab.data.rng import Stream, permutation
from mlxlab.data.text.corpus import mix_by_weight
from mlxlab.data.text.document import DocumentSource
from mlxlab.data.text.order.distribution import TokenDistribution
from mlxlab.data.text.order.served_rows import Pool, ServedOrder
from mlxlab.data.text.order.token_counts import TokenCounts
from mlxlab.data.text.packing import RandomRows, RowLayout, RowOrder

MEASURED_ROWS = 1024  # of a pool whose rows stay in the order of the text


class DataOrder:
    """The order of documents and rows. Subclasses override what they arrange; the rest is random.

    Attributes:
        measure: whether the tokens served are compared with those of the corpus.
    """

    measure: bool

    def check(self, mixture: Mapping[str, float] | None, row_buffer: int) -> None:
        """Raises ConfigError if the order does not fit other settings of the data."""

    def mix(
        self, sources: Sequence[DocumentSource], weights: Mapping[str, float], window: int
    ) -> DocumentSource:
        """One source of several, whose names and weights are those of `data.mixture`."""
        return mix_by_weight(sources, weights, window)

    def arrange(
        self, text: DocumentSource, limit: int | None, chosen: np.ndarray | None, cache: Path
    ) -> DocumentSource:
        """The documents of the training text in the order of an epoch.

        Args:
            limit: maximum number of documents in an epoch, the first ones of `text`.
            chosen: ids of the documents to be read, ascending; None for all.
            cache: folder for what is measured.
        """
        return text

    def rows_per_epoch(self, rows: int) -> int:
        """How many of `rows` rows of text are served."""
        return rows

    def identity(self) -> dict[str, object]:
        """What the rows depend on apart from the text, as JSON for the fingerprint of the data."""
        return {}

    def measured_rows(
        self,
        distribution: TokenDistribution,
        layout: RowLayout,
        row_buffer: int,
        seed: int,
        steps: int | None,
    ) -> RowOrder:
        """The order of packed rows in a run of `steps` that measures the tokens served."""
        return text_rows(distribution, layout, row_buffer, seed)


def row_order(
    order: DataOrder,
    count: Callable[[], TokenCounts],
    layout: RowLayout,
    row_buffer: int,
    seed: int,
    steps: int | None,
) -> tuple[RowOrder, list[str]]:
    """The order of packed rows, and a line for the log if the tokens of the corpus were counted.

    Args:
        count: counts them; called only if they are needed.
        row_buffer: rows that a shuffle permutes together.
        steps: of the run; None if that is unknown.
    """
    if not order.measure:
        return RandomRows(row_buffer, seed), []
    counts = count()
    rows = order.measured_rows(TokenDistribution(counts), layout, row_buffer, seed, steps)
    return rows, [counts.line]


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
