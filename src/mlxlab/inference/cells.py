"""Turns rows held in Python (dicts, texts, a DataFrame) into a table of text cells, as they would stand in a file."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

import numpy as np

from mlxlab.data.dataset import Table
from mlxlab.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("nan", "<NA>", "NaT")  # numbers and times of NumPy and pandas
Rows: TypeAlias = "Iterable[str] | Iterable[Mapping[str, object]] | pd.DataFrame"


def to_table(rows: Rows, columns: Sequence[str]) -> Table:
    """The table of the rows. Texts are allowed for a model that reads one column; a key that a dict lacks is missing.

    Numbers become their shortest decimal form, booleans `true` or `false`, lists and dicts JSON, None and NaN missing.

    Raises:
        DataError: the rows are neither dicts nor texts.
    """
    if is_frame(rows):
        return {str(name): _column(rows[name]) for name in rows.columns}
    if isinstance(rows, str):
        raise DataError("expected a list of rows, got one text; put it into a list")
    rows = list(rows)
    if rows and all(isinstance(row, str) for row in rows):
        if len(columns) != 1:
            raise DataError(f"expected dicts with {', '.join(columns)}, got texts")
        return {columns[0]: [str(row) for row in rows]}
    dicts = []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(f"row {number + 1}: expected a dict like the other rows, got {type(row).__name__}")
        dicts.append(row)
    names = dict.fromkeys(str(name) for row in dicts for name in row)
    return {name: [_cell(row.get(name)) for row in dicts] for name in names or columns}


def is_frame(rows: object) -> "TypeGuard[pd.DataFrame]":
    """Whether this is a DataFrame, without an import of pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(rows, pandas.DataFrame)


def _column(series: "pd.Series") -> list[str | None]:
    """Pandas turns a column of integers with gaps into floats; here they are integers again."""
    values, missing = series.to_numpy(), series.isna().to_numpy()
    if values.dtype.kind == "f" and missing.any() and (values[~missing] == np.floor(values[~missing])).all():
        return [None if gap else str(int(value)) for value, gap in zip(values, missing, strict=True)]
    return [None if gap else _cell(value) for value, gap in zip(values, missing, strict=True)]


def _cell(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | dict) else str(value)
    return None if text in MISSING else text
