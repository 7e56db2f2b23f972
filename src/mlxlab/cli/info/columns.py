"""The table of the columns of rows of your own."""

from typing import TYPE_CHECKING

from mlxlab.markdown import markdown_table

if TYPE_CHECKING:
    from mlxlab.data.labelled.columns import ColumnSummary
    from mlxlab.data.labelled.rows import Rows


def column_table(columns: "list[ColumnSummary]", rows: "Rows") -> str:
    """The number of rows, and what each column holds."""
    head = ["column", "holds", "missing", "different values", "first"]
    cells = [
        [
            _cell(each.name),
            _content(each),
            f"{each.missing:,}",
            f"{each.values:,}",
            _cell(each.first),
        ]
        for each in columns
    ]
    skipped = f", and {rows.malformed:,} that cannot be read" if rows.malformed else ""
    skipped += f", the first: {rows.first_malformed.text}" if rows.first_malformed else ""
    return f"{rows.name}: {len(rows):,} rows{skipped}\n\n{markdown_table(head, cells, 'llrrl')}"


def _content(column: "ColumnSummary") -> str:
    if not column.num_no_numbers:
        return column.content
    return _cell(
        f"probably numbers, with text such as {column.no_number!r} in {column.num_no_numbers:,} cells"
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
