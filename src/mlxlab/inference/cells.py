"""Rows held in Python (dicts, texts, a DataFrame) as a table of texts, as they would stand in a file."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

from mlxlab.config.instantiate import instantiate
from mlxlab.data.dataset import Table
from mlxlab.data.sources.arrow import TableRows
from mlxlab.data.sources.block import FIRST
from mlxlab.data.sources.cells import text_of_values
from mlxlab.data.sources.messages import require_columns
from mlxlab.data.sources.open import Reading
from mlxlab.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

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
    if is_frame(rows):
        arrays = _frame_columns(rows, columns)
    else:
        arrays = _dict_columns(_as_dicts(rows, columns), columns)
    absent = {"", *missing}
    return {
        name: [None if cell in absent else cell for cell in cells.to_pylist()]
        for name, cells in arrays.items()
    }


def row_reading(node: dict[str, Any]) -> Reading:
    """How files of rows are read, by the data node of a run; by default as CSV files of UTF-8."""
    if "reading" not in node:
        return Reading()
    return instantiate(node["reading"], Reading)


def is_frame(rows: object) -> "TypeGuard[pd.DataFrame]":
    """Whether this is a DataFrame, without an import of pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(rows, pandas.DataFrame)


def _frame_columns(frame: "pd.DataFrame", columns: Sequence[str]) -> "dict[str, pa.Array]":
    import pyarrow as pa

    names = [str(name) for name in frame.columns]
    require_columns(columns, names, "rows")
    pieces: dict[str, list[pa.Array]] = {name: [pa.array([], pa.string())] for name in columns}
    if len(frame):
        for block in TableRows(frame, "rows", fingerprint="rows").blocks(0, FIRST, columns):
            for name in columns:
                refuse = _Refusal(name, block.start[1])
                pieces[name].append(block.texts(name, refuse))
    return {name: pa.concat_arrays(arrays) for name, arrays in pieces.items()}


def _dict_columns(
    rows: Sequence[Mapping[str, object]], columns: Sequence[str]
) -> "dict[str, pa.Array]":
    if rows:
        require_columns(columns, list(dict.fromkeys(key for row in rows for key in row)), "rows")
    return {
        name: text_of_values([row.get(name) for row in rows], _Refusal(name, 0)) for name in columns
    }


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


class _Refusal:
    """Refuses a value that cannot stand in a cell of this column, in rows from `first` on."""

    def __init__(self, column: str, first: int) -> None:
        self.column = column
        self.first = first

    def __call__(self, index: int, error: ValueError) -> None:
        raise DataError(f"row {self.first + index + 1}: column {self.column!r}: {error}")
