"""The table of the columns of rows of your own: what they hold, for a look before training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from mlxlab.errors import DataError
from mlxlab.markdown import markdown_table

if TYPE_CHECKING:
    from mlxlab.data.labelled.rows import Part, Rows
    from mlxlab.data.labelled.types import ColumnType


class ColumnSummary(NamedTuple):
    """A column of a source: its type, how many cells are missing, how many different values there are."""

    name: str
    type: str
    missing: int
    values: int
    first: str  # value, shortened
    fault: str  # the first cell that is not of the type


def summarize(rows: "Rows", types: "Mapping[str, ColumnType]") -> list[ColumnSummary]:
    """All columns of a source.

    Args:
        types: those that are known; others are inferred from all rows.
    """
    from mlxlab.data.labelled.types import distinct_texts, fit_type, read_column, shorten

    summaries: list[ColumnSummary] = []
    for name in rows.columns:
        cells = rows.column(name)
        texts, codes = distinct_texts(cells)
        column_type = types.get(name) or fit_type(cells)
        fault = ""
        try:
            read_column(name, cells, column_type, rows.location)
        except DataError as error:
            fault = str(error)
        first = shorten(texts[0]) if texts else ""
        missing = int((codes < 0).sum())
        summaries.append(ColumnSummary(name, column_type.kind, missing, len(texts), first, fault))
    return summaries


def column_table(columns: list[ColumnSummary], part: "Part") -> str:
    """The number of rows, and the type of each column; then the first cell of each that is not of its type."""
    head = ["column", "type", "missing", "different values", "first"]
    cells = [
        [_cell(each.name), each.type, f"{each.missing:,}", f"{each.values:,}", _cell(each.first)]
        for each in columns
    ]
    skipped = ""
    if part.num_malformed:
        first = f", the first: {part.first_malformed}"
        skipped = f", and {part.num_malformed:,} that cannot be read{first}"
    faults = "".join(f"\n\n{each.fault}" for each in columns if each.fault)
    table = markdown_table(head, cells, "llrrl")
    return f"{part.source.name}: {len(part.table):,} rows{skipped}\n\n{table}{faults}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
