"""Arrow columns as columns of text."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mlxlab.data.labelled.sources.cells import cell_text
from mlxlab.errors import DataError

if TYPE_CHECKING:
    import pyarrow

OnError = Callable[[int, ValueError], None]  # (row, what is wrong with its cell)


def check_type(name: str, type_: "pyarrow.DataType", location: str) -> None:
    """Raises DataError for a column of objects."""
    from pyarrow import types

    if types.is_struct(type_) or types.is_map(type_) or types.is_union(type_):
        raise DataError(
            f"{location}: column {name!r} holds {str(type_)[:80]}, expected text, numbers or lists"
        )


def text_array(array: "pyarrow.Array", on_error: OnError) -> "pyarrow.Array":
    """The text of each value, as `cell_text` writes it; null for a malformed one."""
    import pyarrow
    from pyarrow import types

    type_ = array.type
    if types.is_dictionary(type_):
        bad: dict[int, ValueError] = {}
        values = text_array(array.dictionary, bad.__setitem__)
        if bad:
            for row, index in enumerate(array.indices.to_pylist()):
                if index in bad:
                    on_error(row, bad[index])
        return values.take(array.indices)
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        try:
            text = array.cast(pyarrow.string())
            text.validate(full=True)
            return text
        except pyarrow.ArrowInvalid:
            return _by_value(array.cast(pyarrow.large_binary()), on_error)
    if types.is_integer(type_) or types.is_boolean(type_) or types.is_decimal(type_):
        return array.cast(pyarrow.string())
    if types.is_temporal(type_) and not types.is_duration(type_):
        return _iso(array)
    if types.is_null(type_):
        return pyarrow.nulls(len(array), pyarrow.string())
    return _by_value(array, on_error)


def _iso(array: "pyarrow.Array") -> "pyarrow.Array":
    """ISO dates and times without zeros at the end of the seconds."""
    import pyarrow
    from pyarrow import compute

    if pyarrow.types.is_date(array.type):
        return array.cast(pyarrow.date32()).cast(pyarrow.string())
    text = compute.replace_substring(array.cast(pyarrow.string()), " ", "T", max_replacements=1)
    text = compute.replace_substring_regex(text, r"(\.\d*[1-9])0+(Z|[+-]\d+)?$", r"\1\2")
    return compute.replace_substring_regex(text, r"\.0+(Z|[+-]\d+)?$", r"\1")


def _by_value(array: "pyarrow.Array", on_error: OnError) -> "pyarrow.Array":
    import numpy as np
    import pyarrow
    from pyarrow import types

    cells: list[str | None] = []
    for row, scalar in enumerate(array):
        try:
            value = scalar.as_py()
            if (
                value is not None
                and types.is_floating(array.type)
                and not types.is_float64(array.type)
            ):
                value = float(
                    str(np.dtype(array.type.to_pandas_dtype()).type(value))
                )  # 0.1, not 0.10000000149
            cells.append(cell_text(value))
        except ValueError as error:
            cells.append(None)
            on_error(row, error)
    return pyarrow.array(cells, pyarrow.string())
