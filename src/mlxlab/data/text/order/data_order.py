"""The interface of the orders that a config can choose with `data/order`."""

from collections.abc import Mapping
from typing import Protocol

from mlxlab.data.text.order.distribution import TokenDistribution
from mlxlab.data.text.packing import RowLayout, RowOrder


class DataOrder(Protocol):
    """What comes first in an epoch of streamed text."""

    @property
    def measure(self) -> bool:
        """Whether the tokens served are compared with those of the corpus, which are then counted."""

    @property
    def content(self) -> Mapping[str, object]:
        """What the batches depend on besides the text, by name, as JSON; empty for a plain shuffle."""

    def rows(
        self, distribution: TokenDistribution | None, layout: RowLayout, row_buffer: int, seed: int, steps: int | None
    ) -> RowOrder:
        """The order of packed rows.

        Args:
            distribution: of the tokens of the corpus; None unless `measure`.
            row_buffer: rows that a shuffle permutes together.
            steps: of the run; None if that is unknown.

        Raises:
            ConfigError: settings do not go together.
        """

    def rows_per_epoch(self, rows: int) -> int:
        """Of `rows` rows of text, those that are served."""
