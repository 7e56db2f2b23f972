"""Fits how the rows of a table are written on the training rows: which columns hold numbers, and their bins."""

import re
from collections.abc import Callable, Collection, Sequence

import numpy as np

from mlxlab.data.labelled.labels import Column, is_number_with_comma, shorten
from mlxlab.data.labelled.table.renderer import (
    NumberFormat,
    TableRenderer,
    expected_number,
    parse_number,
)
from mlxlab.data.labelled.table.template import Template
from mlxlab.errors import DataError

MAX_EXAMPLES = 3  # cells named in a message
MAX_COLUMNS = 12  # listed in an override
MOSTLY_DIFFERENT = 0.9  # of the rows with different texts: they are no categories
MIN_IDS = 10  # rows with different texts or numbers that look like ids
_ID = re.compile(r"(^|[^A-Za-z])([iI]d|ID)$|[a-z]I[dD]$")  # id, user_id, PassengerId


def fit_renderer(
    template: Template,
    column_of: Callable[[str], Column],
    train: np.ndarray,
    numbers: NumberFormat,
    categorical: Collection[str],
) -> tuple[TableRenderer, list[str]]:
    """A renderer with number rules of the training rows, and lines for the log.

    A column holds numbers if all its training cells that are not missing are finite numbers.

    Args:
        column_of: the cells of a column in all rows that will be rendered.
        categorical: columns whose numbers are names.

    Raises:
        DataError: most cells of a column are numbers, but not all; or a cell of another row is no number.
    """
    bounds, lines = dict[str, list[float]](), list[str]()
    for name in dict.fromkeys(template.fields):
        everywhere = column_of(name)
        column = everywhere.take(train)
        values = None if name in categorical else _numbers(column)
        if values is not None:
            _check_numbers(everywhere)
            bounds[name] = numbers.fit(values)
        lines += _describe(column, values is not None)
    count, texts = len(bounds), len(set(template.fields)) - len(bounds)
    rule = (
        f"at most {numbers.bins} bins each"
        if numbers.mode == "bins"
        else f"{numbers.digits} significant digits"
    )
    summary = f"{count} column{'s' * (count != 1)} of numbers ({rule}), {texts} of text"
    return TableRenderer(template.literals, template.fields, numbers, bounds), [summary, *lines]


def _numbers(column: Column) -> np.ndarray | None:
    """The numbers of the cells that are not missing, or None if the column holds text."""
    values = [parse_number(cell) for cell in column.values]
    others = [code for code, value in enumerate(values) if value is None]
    codes = column.codes[column.codes >= 0]
    if not others and len(values):
        return np.array(values)[codes]
    is_other = np.isin(codes, others)
    if len(codes) and is_other.mean() < 0.5:
        raise _mixed(column, others, int(is_other.sum()), len(codes))
    if len(column.values) and all(map(is_number_with_comma, column.values)):
        got = f"numbers with a comma, such as {shorten(column.values[0])!r}"
        raise DataError(f"{column.where(0)}: {got}; expected a decimal point")
    return None


def _mixed(column: Column, others: Sequence[int], count: int, cells: int) -> DataError:
    """The error about a column of numbers with other cells, `others` being their values."""
    first = [int(np.argmax(column.codes == code)) for code in others[:MAX_EXAMPLES]]
    examples = [f"{shorten(column.values[code])!r}" for code in others[:MAX_EXAMPLES]]
    rows = ", ".join(map(column.location, first))
    got = f"{count} of {cells} cells are no finite numbers: {', '.join(examples)} ({rows})"
    keys = "see data.reading.missing, data.categorical and data.columns"
    return DataError(f"{column.location(first[0])}: column {column.name!r}: {got}; {keys}")


def _check_numbers(column: Column) -> None:
    """Raises DataError if a cell, of whichever row, is no number."""
    for code, cell in enumerate(column.values):
        if parse_number(cell) is None and (column.codes == code).any():
            where = column.location(int(np.argmax(column.codes == code)))
            raise DataError(f"{where}: {expected_number(column.name, cell)}")


def _describe(column: Column, is_number: bool) -> list[str]:
    rows, present = len(column.codes), column.codes >= 0
    name = f"column {column.name!r}"
    if not present.any():
        return [f"{name} is missing in all training rows"]
    if len(column.values) == 1 and present.all():
        return [f"{name} is {shorten(column.values[0])!r} in all training rows: it says nothing"]
    if not is_number and hardly_repeat(len(column.values), rows):
        return [f"{name} {_describe_texts(column)}"]
    if is_number and rows >= MIN_IDS and _is_identifier(column):
        unique = f"{name} has another whole number in each of {rows:,} training rows"
        return [f"{unique}: probably an identifier"]
    return []


def hardly_repeat(different: int, rows: int) -> bool:
    """Whether these are no categories: nearly as many different texts as rows."""
    return rows >= MIN_IDS and different >= MOSTLY_DIFFERENT * rows


def _describe_texts(column: Column) -> str:
    """What a column of texts that hardly repeat probably holds: sentences, or ids."""
    count, rows = len(column.values), len(column.codes)
    got = (
        f"another text in each of {rows:,}"
        if count == rows
        else f"{count:,} different texts in {rows:,}"
    )
    if 2 * sum(" " in text.strip() for text in column.values) > count:
        return f"has {got} training rows: of the baselines only TF-IDF reads their words"
    return f"has {got} training rows, as an id has"


def _is_identifier(column: Column) -> bool:
    """Whether a column of numbers numbers the rows: whole, all different, close together unless its name says so."""
    if len(column.values) < len(column.codes):
        return False
    values = np.array([float(cell) for cell in column.values])
    is_dense = values.max() - values.min() < 2 * len(values)
    return bool((values == np.floor(values)).all() and (is_dense or _ID.search(column.name)))
