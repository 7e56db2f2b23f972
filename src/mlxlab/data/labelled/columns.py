"""What the columns of a source hold, for a look at it before training."""

from collections.abc import Mapping
from typing import NamedTuple

from mlxlab.data.labelled.rows import Rows
from mlxlab.data.labelled.types import ColumnType, distinct_texts, fit_type, shorten
from mlxlab.errors import DataError


class ColumnSummary(NamedTuple):
    """A column of a source: its type, how many cells are missing, how many different values there are."""

    name: str
    type: str  # "" where it cannot be told
    missing: int
    values: int
    first: str  # value, shortened
    fault: str  # why the type cannot be told


def summarize(rows: Rows, types: Mapping[str, ColumnType]) -> list[ColumnSummary]:
    """All columns of a source.

    Args:
        types: those that are known; others are inferred from all rows.
    """
    summaries: list[ColumnSummary] = []
    for name in rows.columns:
        cells = rows.column(name)
        texts, codes = distinct_texts(cells)
        kind = ""
        fault = ""
        try:
            column_type = types.get(name) or fit_type(name, cells, None, rows.location)
            kind = column_type.kind
        except DataError as error:
            fault = str(error)
        first = shorten(texts[0]) if texts else ""
        summaries.append(
            ColumnSummary(name, kind, int((codes < 0).sum()), len(texts), first, fault)
        )
    return summaries
