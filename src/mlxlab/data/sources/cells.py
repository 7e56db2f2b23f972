"""Cells as text: the one form in which all formats agree. Types are read from it by `labelled.types`.

A number is the shortest text that gives it back, a boolean `true` or `false`, a time ISO 8601, a
list or an object its JSON. NaN, NaT and null are missing. Every text that UTF-8 can encode is valid,
control characters included.
"""

import json
import math
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal

import numpy as np
import pyarrow as pa
from pyarrow import types

OnBadCell = Callable[[int, ValueError], None]  # (index of the cell, what is wrong with it)

EXACT = (  # Arrow writes these as Python does
    types.is_large_string,
    types.is_string_view,
    types.is_integer,
    types.is_boolean,
    types.is_decimal,
)


def text_of_values(values: Sequence[object], on_bad_cell: OnBadCell | None = None) -> pa.Array:
    """The text of Python values; raises ValueError for one that has none, unless it is reported."""
    return pa.array(strings_of_values(values, on_bad_cell), pa.string())


def strings_of_values(
    values: Sequence[object], on_bad_cell: OnBadCell | None = None
) -> list[str | None]:
    """`text_of_values` as a list, without an Arrow array, for which Arrow imports pandas."""
    cells: list[str | None] = []
    for index, value in enumerate(values):
        try:
            cells.append(cell_text(value))
        except ValueError as error:
            if on_bad_cell is None:
                raise
            on_bad_cell(index, error)
            cells.append(None)
    return cells


def text_of_array(array: pa.Array, on_bad_cell: OnBadCell | None = None) -> pa.Array:
    """The text of an Arrow array of any type; raises ValueError like `text_of_values`."""
    from pyarrow import compute

    kind = array.type
    if types.is_string(kind):
        return array
    if types.is_dictionary(kind):
        return text_of_array(array.dictionary, on_bad_cell).take(array.indices)
    if any(is_exact(kind) for is_exact in EXACT):
        return array.cast(pa.string())
    if types.is_floating(kind):
        numbers = compute.if_else(compute.is_nan(array), pa.scalar(None, kind), array)
        return numbers.cast(pa.string())
    if types.is_date(kind):
        return array.cast(pa.date32()).cast(pa.string())
    return text_of_values(array.to_pylist(), on_bad_cell)


def cell_text(value: object) -> str | None:
    """The text of a value; raises ValueError for one that has none."""
    match value:
        case None:
            return None
        case str():
            return _encodable(value)
        case bool() | np.bool_():
            return "true" if value else "false"
        case int() | np.integer() | Decimal():
            return str(value)
        case float() | np.floating():
            return None if math.isnan(value) else str(value)
        case datetime() | date() | time():
            is_missing = value != value  # NaT differs from itself.
            return None if is_missing else value.isoformat()
        case bytes():
            return value.decode()
        case list() | dict() | np.ndarray():
            return _encodable(_json_text(value))
    if type(value).__name__ == "NAType":  # The type is in pandas, which need not be imported.
        return None
    raise ValueError(f"a value of type {type(value).__name__}")


def _json_text(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, default=_json_value)
    except RecursionError:
        raise ValueError("a list that is nested too deep") from None


def _json_value(value: object) -> object:
    """A value that JSON does not know, as one that it knows."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return str(value)


def _encodable(text: str) -> str:
    """Text without lone surrogates, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = f"\\u{ord(text[error.start]):04x}"
        raise ValueError(f"a lone surrogate ({code}) is not a character") from None
    return text
