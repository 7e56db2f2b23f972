"""The orders that `data/order` chooses from, and the order of rows that each makes."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from mlxlab.data.text.order.curriculum import CurriculumOrder
from mlxlab.data.text.order.distribution import TokenDistribution
from mlxlab.data.text.order.easy_first import EasyFirstOrder
from mlxlab.data.text.order.shuffle import ShuffleOrder, text_rows
from mlxlab.data.text.order.staged import KEY, StagedOrder
from mlxlab.data.text.order.token_counts import TokenCounts
from mlxlab.data.text.packing import RandomRows, RowLayout, RowOrder
from mlxlab.errors import ConfigError

DataOrder: TypeAlias = ShuffleOrder | CurriculumOrder | EasyFirstOrder | StagedOrder


def refuse_misfit(order: DataOrder, mixture: Mapping[str, float] | None, row_buffer: int) -> None:
    """Raises ConfigError if settings do not go together."""
    if isinstance(order, StagedOrder) and mixture is None:
        raise ConfigError(f"{KEY}: expected several sources in data.mixture, got none")
    if isinstance(order, CurriculumOrder) and row_buffer:
        raise ConfigError(
            f"data.shuffle.row_buffer={row_buffer}: expected 0, a curriculum orders the rows"
        )


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
    distribution = TokenDistribution(counts)
    if isinstance(order, CurriculumOrder):
        return order.rows(distribution, layout, seed, steps), [counts.line]
    return text_rows(distribution, layout, row_buffer, seed), [counts.line]
