"""The interface of `data/order`, and its default: documents in a random order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlxlab.data.text.batches import RandomRows, RowLayout, RowOrder
from mlxlab.data.text.corpus import mix_by_weight
from mlxlab.data.text.documents import DocumentSource
from mlxlab.data.vocabulary.token_counts import TokenCounts


class DataOrder:
    """The order of documents and rows. Subclasses override what they arrange; the rest is random.

    Attributes:
        measure: `measured_rows` is called, for which the tokens of the training text are counted.
    """

    measure = False

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
        corpus: TokenCounts,
        layout: RowLayout,
        row_buffer: int,
        seed: int,
        steps: int | None,
    ) -> RowOrder:
        """The order of packed rows in a run of `steps`, None if that is unknown."""
        raise NotImplementedError


@dataclass(frozen=True)
class ShuffleOrder(DataOrder):
    """Documents in a random order, another one in each epoch."""


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
    corpus = count()
    rows = order.measured_rows(corpus, layout, row_buffer, seed, steps)
    return rows, [corpus.line]
