"""Turns rows held in Python (dicts, texts, a DataFrame) into a table of text cells, as they would stand in a file."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time
from typing import TYPE_CHECKING, TypeAlias, TypeGuard

import numpy as np

from mlxlab.data.dataset import Table
from mlxlab.data.labelled.sources.cells import cell_text
from mlxlab.data.labelled.sources.source import check_names
from mlxlab.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

MISSING = ("nan", "<NA>", "NaT")  # numbers and times of NumPy and pandas
Rows: TypeAlias = "Iterable[str] | Iterable[Mapping[str, object]] | pd.DataFrame"


def to_table(rows: Rows, columns: Sequence[str], missing: Sequence[str] = ("",)) -> Table:
    """The table of the rows. Texts are allowed for a model that reads one column; a key that a dict lacks is missing.

    Values become the text that they have in training data from a typed file, see `cell_text`; None, NaN and the texts
    in `missing` are missing. Other columns than `columns` keep their names, but all their cells are missing.

    Raises:
        DataError: the rows are neither dicts nor texts, a column occurs twice, or a value cannot stand in a cell.
    """
    if is_frame(rows):
        names = [str(name) for name in rows.columns]
        check_names(names, "DataFrame")
        series = {name: rows.iloc[:, index] for index, name in enumerate(names) if name in columns}
        cells = {
            name: _values(series[name]) if name in series else [None] * len(rows) for name in names
        }
        return {name: _cells(name, values, missing) for name, values in cells.items()}
    if isinstance(rows, str):
        raise DataError("expected a list of rows, got one text; put it into a list")
    rows = list(rows)
    if rows and all(isinstance(row, str) for row in rows):
        if len(columns) != 1:
            raise DataError(f"expected dicts with {', '.join(columns)}, got texts")
        return {columns[0]: _cells(columns[0], rows, missing)}
    dicts = []
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise DataError(
                f"row {number + 1}: expected a dict like the other rows, got {type(row).__name__}"
            )
        dicts.append(row)
    names = list(dict.fromkeys(str(name) for row in dicts for name in row)) or list(columns)
    return {
        name: _cells(name, [row.get(name) if name in columns else None for row in dicts], missing)
        for name in names
    }


def is_frame(rows: object) -> "TypeGuard[pd.DataFrame]":
    """Whether this is a DataFrame, without an import of pandas."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(rows, pandas.DataFrame)


def _values(series: "pd.Series") -> list[object]:
    """Pandas turns a column of integers with gaps into floats; here they are integers again."""
    values, missing = series.to_numpy(), series.isna().to_numpy()
    present = values[~missing]
    if (
        values.dtype.kind == "f"
        and missing.any()
        and np.isfinite(present).all()
        and (present == np.floor(present)).all()
    ):
        return [None if gap else int(value) for value, gap in zip(values, missing, strict=True)]
    return [None if gap else value for value, gap in zip(values, missing, strict=True)]


def _cells(name: str, values: Sequence[object], missing: Sequence[str]) -> list[str | None]:
    cells: list[str | None] = []
    for row, value in enumerate(values, 1):
        try:
            text = cell_text(_python_value(value))
        except RecursionError:
            raise DataError(f"row {row}: column {name!r}: a list that is nested too deep") from None
        except ValueError as error:
            raise DataError(f"row {row}: column {name!r}: {error}") from None
        cells.append(None if text in missing else text)
    return cells


def _python_value(value: object) -> object:
    """A value of NumPy or pandas as one that `cell_text` knows; dates and times as their text in a Parquet file."""
    if value is None or isinstance(value, str | bytes | Mapping):
        return value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_python_value(each) for each in value]
    if str(value) in MISSING:
        return None
    if isinstance(value, date | time | np.datetime64):
        return _time_text(value)
    if isinstance(value, np.floating):
        return float(str(value))  # 0.1, not 0.10000000149
    return (
        value.item()
        if isinstance(value, np.generic) and not isinstance(value, np.timedelta64)
        else value
    )


def _time_text(value: object) -> str:
    import pyarrow

    from mlxlab.data.labelled.sources.arrow_text import text_array

    [text] = text_array(pyarrow.array([value]), lambda row, error: None)
    return str(text)
