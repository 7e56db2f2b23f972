"""Rows as texts: the words of their cells, and the bins of numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlxlab.data.dataset import Table
from mlxlab.data.labelled.types import ColumnType, TypedColumn, Types, read_table, spell
from mlxlab.files.untrusted import ShapeError
from mlxlab.schema.constraints import Ge, Le

MISSING = "missing"  # the word for a cell without a value
AMOUNTS = ("number", "integer")


@dataclass(frozen=True)
class RowRenderer:
    """Writes each row as a text, or as a pair of texts.

    Args:
        types: of each column, in their order.
        are_texts: whether each column, one or two, is a text of its own; otherwise all columns are one text,
            `column: value` for each of them.
        bounds: of the bins of columns of numbers, see `fit_bins`; other numbers are written with all digits.
        bin_digits: of the number of a bin.
    """

    types: dict[str, ColumnType]
    are_texts: bool
    bounds: dict[str, list[float]]
    bin_digits: Annotated[int, Ge(2), Le(3)]

    num_variants = 1

    def __post_init__(self) -> None:
        """Raises ShapeError for fields that do not go together: those of a file may be any."""
        amounts = {name for name, each in self.types.items() if each.kind in AMOUNTS}
        is_valid = bool(self.types) and amounts >= self.bounds.keys()
        is_valid &= not self.are_texts or len(self.types) <= 2
        for bounds in self.bounds.values():
            is_valid &= bool(np.isfinite(bounds).all() and (np.diff(bounds) > 0).all())
        if not is_valid:
            raise ShapeError("renderer", "expected columns, those of numbers with ascending bounds")

    @property
    def is_pair(self) -> bool:
        return self.are_texts and len(self.types) == 2

    def choose(self, ids: np.ndarray, epoch: int, copies: int | np.ndarray) -> np.ndarray:
        return np.zeros(len(ids), np.int64)

    def render_all(self, table: Table) -> list[tuple[str, ...]]:
        return self.render(table)

    @property
    def required(self) -> Sequence[str]:
        """Columns that are a text of their own; a missing cell of another one is written as missing."""
        if not self.are_texts:
            return []
        return list(self.types)

    def exact(self) -> "RowRenderer":
        """A renderer that writes all digits of numbers, for reports."""
        return replace(self, bounds={})

    def render(self, table: Table) -> list[tuple[str, ...]]:
        columns = read_table(table, self.types).values()
        if self.are_texts:
            texts = [pa.array(column.spelled(), pa.string()).fill_null("") for column in columns]
        else:
            named = [self._named(column) for column in columns]
            texts = [pc.binary_join_element_wise(*named, ", ")]
        return list(zip(*(each.to_pylist() for each in texts), strict=True))

    def _named(self, column: TypedColumn) -> pa.Array:
        """Name and word of each cell."""
        if column.name in self.bounds:
            amounts = np.array(column.values, np.float64)
            bins = np.searchsorted(self.bounds[column.name], amounts, side="right")
            words = [f"q{number:0{self.bin_digits}d}" for number in bins]
        else:
            words = [" ".join(spell(value).split()) for value in column.values]
        of_rows = pa.array(np.array([*words, MISSING], object)[column.codes], pa.string())
        return pc.binary_join_element_wise(f"{column.name}: ", of_rows, "")

    def rules(self) -> object:
        """How texts are made: all but the categories that were seen."""
        types = {name: replace(each, categories=()) for name, each in self.types.items()}
        return replace(self, types=types)

    def state_dict(self) -> Mapping[str, object]:
        return asdict(self)


def fit_bounds(columns: Mapping[str, TypedColumn], bins: int | None) -> dict[str, list[float]]:
    """The bounds of the bins of numbers, by the training rows; None is without bins."""
    bounds = {}
    for name, column in columns.items():
        if bins is not None and column.type.kind in AMOUNTS:
            amounts = column.amounts()
            bounds[name] = fit_bins(amounts[~np.isnan(amounts)], bins)
    return bounds


def fit_bins(values: np.ndarray, bins: int) -> list[float]:
    """The lower bounds of all bins but the first, ascending; each is a training value.

    The bins hold about equally many values. At most `bins` different values get a bin each. Numbers beyond the training
    values are in the outer bins.
    """
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) <= bins:
        return distinct[1:].tolist()
    bounds: list[float] = []
    in_bin = 0
    num_left = len(values)
    for value, count in zip(distinct.tolist(), counts.tolist(), strict=True):
        # A bin holds an equal share of what is left: a frequent value takes no bins from the others.
        is_full = in_bin * (bins - len(bounds)) >= num_left
        if is_full and len(bounds) < bins - 1:
            bounds.append(value)
            num_left -= in_bin
            in_bin = 0
        in_bin += count
    return bounds


def feature_columns(table: Table, types: Types) -> dict[str, np.ndarray]:
    """Numbers (N,) as float64, and words (N,) of categories; columns of texts are left out."""
    columns = {}
    for name, column in read_table(table, types).items():
        if column.type.kind == "category":
            words = [*map(spell, column.values), MISSING]
            columns[name] = np.array(words, object)[column.codes]
        elif column.type.kind != "text":
            columns[name] = column.amounts()
    return columns
