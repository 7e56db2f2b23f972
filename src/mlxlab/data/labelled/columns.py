"""What the columns of a source hold, for a look at it before training."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, NamedTuple

import numpy as np

from mlxlab.data.labelled.labelled_rows import LabelledRows
from mlxlab.data.labelled.labels import is_number, is_number_with_comma, shorten
from mlxlab.data.labelled.rows import Rows

Content = Literal["dates", "numbers", "numbers with a comma", "text", "text and numbers", "nothing"]


class ColumnSummary(NamedTuple):
    """A column of a source: what it holds, how many cells are missing, how many different values there are."""

    name: str
    content: Content
    missing: int
    values: int
    first: str  # of the values, shortened
    mean_length: float  # of the values, in characters
    no_number: str = (
        ""  # the most frequent value that is no number, of a column of text and numbers
    )
    num_no_numbers: int = 0  # cells with any such value


def summarize(rows: Rows) -> list[ColumnSummary]:
    """All columns of a source."""
    table = LabelledRows([rows])
    return [_summary(table, name) for name in rows.columns]


def _summary(table: LabelledRows, name: str) -> ColumnSummary:
    column = table.codes(name).stripped()
    first = shorten(column.values[0]) if column.values else ""
    length = float(np.mean([len(text) for text in column.values])) if column.values else 0.0
    content, missing = _content(column.values), int((column.codes < 0).sum())
    others = {}
    if content == "text and numbers":
        counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.values)).tolist()
        others = {
            text: count
            for text, count in zip(column.values, counts, strict=True)
            if not is_number(text)
        }
    frequent = shorten(max(others, key=others.__getitem__)) if others else ""
    mixed = (frequent, sum(others.values()))
    return ColumnSummary(name, content, missing, len(column.values), first, length, *mixed)


def _content(values: Sequence[str]) -> Content:
    if not values:
        return "nothing"
    numbers = [is_number(text) for text in values]
    if all(numbers):
        return "numbers"
    if all(map(is_number_with_comma, values)):
        return "numbers with a comma"
    if all(map(_is_date, values)):
        return "dates"
    return "text and numbers" if 2 * sum(numbers) > len(numbers) else "text"


def _is_date(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
