"""The table of the columns of rows of your own."""

from typing import TYPE_CHECKING

from mlxlab.markdown import markdown_table

if TYPE_CHECKING:
    from mlxlab.data.labelled.columns import ColumnSummary
    from mlxlab.data.labelled.rows import Part


def column_table(columns: "list[ColumnSummary]", part: "Part") -> str:
    """The number of rows, and the type of each column; then what is wrong with columns without one."""
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
