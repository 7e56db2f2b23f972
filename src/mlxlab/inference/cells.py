"""Rows held in Python (dicts, texts, a DataFrame) as a table of texts, as they would stand in a file."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from mlxlab.config.instantiate import instantiate
from mlxlab.data.dataset import Table
from mlxlab.data.labelled.rows import text_blocks
from mlxlab.data.sources.arrow import TableRows
from mlxlab.data.sources.block import ErrorBudget
from mlxlab.data.sources.open import Reading
from mlxlab.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

Rows: TypeAlias = "Iterable[str] | Iterable[Mapping[str, object]] | pd.DataFrame"


def to_table(rows: Rows, columns: Sequence[str], missing: Sequence[str] = ()) -> Table:
    """These columns of the rows. Texts are allowed for a model that reads one column; a key that a dict lacks is missing.

    Args:
        missing: texts that count as missing besides empty ones.

    Raises:
        DataError: the rows are neither dicts nor texts, a column is missing, or a value cannot stand in a cell.
    """
    if isinstance(rows, str):
        raise DataError("expected a list of rows, got one text; put it into a list")
    held = rows if is_frame(rows) else _as_dicts(rows, columns)
    table: dict[str, list[str | None]] = {name: [] for name in columns}
    if not len(held):
        return table
    source = TableRows(held, "rows", fingerprint="rows")
    for block in text_blocks(source, columns, missing, ErrorBudget("strict")):
        for name, cells in block.columns.to_pydict().items():
            table[name] += cells
    return table


def row_reading(node: dict[str, Any]) -> Reading:
    """How files of rows are read, by the data node of a run; by default as CSV files of UTF-8."""
    if "reading" not in node:
        return Reading()
    return instantiate(node["reading"], Reading)


def is_frame(rows: object) -> "TypeGuard[pd.DataFrame]":
    """Whether this is a DataFrame, without an import of pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(rows, pandas.DataFrame)


def _as_dicts(
    rows: "Iterable[str] | Iterable[Mapping[str, object]]", columns: Sequence[str]
) -> list[Mapping[str, object]]:
    dicts: list[Mapping[str, object]] = []
    for number, row in enumerate(rows, 1):
        if isinstance(row, Mapping):
            dicts.append(row)
        elif isinstance(row, str) and len(columns) == 1:
            dicts.append({columns[0]: row})
        else:
            expected = f"expected a dict with {', '.join(columns)}, got {type(row).__name__}"
            raise DataError(f"row {number}: {expected}")
    return dicts
