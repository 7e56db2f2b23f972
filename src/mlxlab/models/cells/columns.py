"""The rows of a table as numbers: what `model=tabular` reads. Fitted on the training rows, saved with a run, restored.

A number is given in robust standard deviations from the median, a category by its code, a time by its parts, a text by
the numbers of a reader (`text_reader`).
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, TypedDict

import numpy as np

from mlxlab.data.labelled.types import TypedColumn, amount
from mlxlab.models.cells.text_reader import Margin
from mlxlab.schema.constraints import Count, Positive

MAX_CATEGORIES = 60  # the most frequent ones of a column
MIN_ROWS = 2  # a rarer category has no code
ROWS_PER_BIN = 30
MIN_BINS = 4
MAX_BINS = 24
NORMAL_QUARTILES = (
    1.349  # the distance of the quartiles of a normal distribution, in standard deviations
)
MAX_CELL = 1e6
SOFT_LIMIT = 3.0  # equal to that of `models/tabular`
UNSEEN = -1.0
SECONDS_PER_DAY = 86_400

Part = Literal["value", "category", "text", "day", "year", "month", "weekday", "hour"]
PARTS: dict[Part, Callable[[datetime], float]] = {
    "day": lambda time: amount(time) / SECONDS_PER_DAY,
    "year": lambda time: time.year,
    "month": lambda time: time.month,
    "weekday": lambda time: time.weekday(),
    "hour": lambda time: time.hour + time.minute / 60,
}


class CellColumn(TypedDict):
    """A column of cells: the part of a table's column, and how it is scaled or coded.

    Args:
        median, scale: of a number.
        categories: the values of a category that have a code, in the order of their codes.
        number: of a text, which of the numbers of its reader.
    """

    name: str
    part: Part
    median: float
    scale: Positive
    categories: list[str]
    number: Count


class FittedColumn(NamedTuple):
    """A column of cells, and as the model reads it (`models.tabular.Column`)."""

    cells: CellColumn
    model: dict[str, object]


def fit_columns(train: Mapping[str, TypedColumn]) -> list[FittedColumn]:
    """The columns of cells for those of the training rows but texts; a column of one value alone has none."""
    fitted = []
    for name, column in train.items():
        match column.type.kind:
            case "text":
                continue
            case "category" | "boolean":
                fitted += _fit_category(name, column)
            case "datetime":
                for part in PARTS:
                    fitted += _fit_number(name, part, column.amounts(PARTS[part]))
            case _:
                fitted += _fit_number(name, "value", column.amounts())
    return fitted


def fit_text_columns(
    column: TypedColumn, numbers: np.ndarray, margins: Sequence[Margin]
) -> list[FittedColumn]:
    """The columns of cells for a column of texts.

    Args:
        numbers: (U, D) of its U texts, as their reader gives them for rows that it did not learn from.
        margins: what the first numbers are.
    """
    fitted = []
    for number, values in enumerate(numbers.T):
        amounts = np.append(values, np.nan)[column.codes]
        for each in _fit_number(column.name, "text", amounts, number):
            if number < len(margins):
                scaled = {"center": each.cells["median"], "scale": each.cells["scale"]}
                each.model["margin"] = {**margins[number]._asdict(), **scaled}
            fitted.append(each)
    return fitted


def read_cells(
    column: TypedColumn, cells: CellColumn, numbers: np.ndarray | None = None
) -> np.ndarray:
    """(N,) float32.

    Args:
        numbers: (U, D) of the U texts of a column of texts.
    """
    if cells["part"] == "category":
        codes = {name: code for code, name in enumerate(cells["categories"])}
        values = [codes.get(str(value), UNSEEN) for value in column.values]
        return np.array([*values, np.nan], np.float32)[column.codes]
    if numbers is None:
        amounts = column.amounts(PARTS.get(cells["part"], amount))
    else:
        amounts = np.append(numbers[:, cells["number"]], np.nan)[column.codes]
    scaled = (amounts - cells["median"]) / cells["scale"]
    return np.clip(scaled, -MAX_CELL, MAX_CELL).astype(np.float32)


def _fit_number(name: str, part: Part, amounts: np.ndarray, number: int = 0) -> list[FittedColumn]:
    is_missing = np.isnan(amounts)
    present = amounts[~is_missing]
    if len(np.unique(present)) < 2:
        return []
    median = float(np.median(present))
    low, high = np.quantile(present, [0.25, 0.75])
    scale = float((high - low) / NORMAL_QUARTILES or present.std())
    cells = CellColumn(
        name=name, part=part, median=median, scale=scale, categories=[], number=number
    )

    scaled = np.where(is_missing, 0, (amounts - median) / scale)
    squeezed = scaled / np.sqrt(1 + (scaled / SOFT_LIMIT) ** 2)
    bins = int(np.clip(len(amounts) / ROWS_PER_BIN, MIN_BINS, MAX_BINS))
    quantiles = np.quantile(scaled[~is_missing], np.linspace(0, 1, bins + 1))
    model = {
        "edges": np.unique(quantiles.astype(np.float32)).tolist(),
        "mean": float(squeezed.mean()),
        "deviation": float(squeezed.std()),
        "missing": bool(is_missing.any()),
    }
    return [FittedColumn(cells, model)]


def _fit_category(name: str, column: TypedColumn) -> list[FittedColumn]:
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.values))
    order = np.argsort(-counts, kind="stable")[:MAX_CATEGORIES]
    categories = [str(column.values[index]) for index in order if counts[index] >= MIN_ROWS]
    is_missing = column.codes < 0
    if len(column.values) + bool(is_missing.any()) < 2 or not categories:
        return []
    cells = CellColumn(
        name=name, part="category", median=0.0, scale=1.0, categories=categories, number=0
    )
    model: dict[str, object] = {"categories": len(categories), "missing": bool(is_missing.any())}
    return [FittedColumn(cells, model)]
