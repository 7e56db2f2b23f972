"""Renders the rows of a table as text by a template; numbers by a rule that is fitted on the training rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Annotated, ClassVar, Literal, TypedDict

import numpy as np

from mlxlab.constraints import Ge, Le, MinLen
from mlxlab.data.dataset import Table
from mlxlab.data.labelled.encoder import Texts
from mlxlab.data.labelled.labels import is_number, shorten
from mlxlab.errors import DataError
from mlxlab.files.untrusted import ShapeError, validate
from mlxlab.wording import one_of

MISSING = "missing"  # the word for a cell without a value


@dataclass(frozen=True)
class NumberFormat:
    """How numbers are written.

    Args:
        mode: bins writes the quantile that a number is in, as q00, q01, ...; text writes its digits.
        bins: number of quantiles of the training values, which hold about equally many of them. A column with at most
            that many different values gets a bin for each. Numbers beyond the training values are in the outer bins.
        digits: significant digits of mode=text.
    """

    mode: Literal["bins", "text"]
    bins: Annotated[int, Ge(2), Le(1000)]
    digits: Annotated[int, Ge(1), Le(17)]

    def fit(self, values: np.ndarray) -> list[float]:
        """The lower bounds of all bins but the first, ascending; each is a training value. Empty for mode=text."""
        distinct, counts = np.unique(values, return_counts=True)
        if self.mode == "text" or len(distinct) <= self.bins:
            return [] if self.mode == "text" else distinct[1:].tolist()
        bounds, in_bin, left = list[float](), 0, len(values)
        for value, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            if in_bin * (self.bins - len(bounds)) >= left and len(bounds) < self.bins - 1:
                bounds.append(
                    value
                )  # an equal share of what is left: a frequent value takes no bins from the others
                in_bin, left = 0, left - in_bin
            in_bin += count
        return bounds

    def write(self, values: np.ndarray, bounds: Sequence[float]) -> list[str]:
        """The word of each finite number."""
        if self.mode == "text":
            return [f"{value + 0.0:.{self.digits}g}" for value in values.tolist()]  # + 0.0: no -0
        width = len(str(self.bins - 1))
        words = [f"q{bin:0{max(width, 2)}d}" for bin in range(len(bounds) + 1)]
        return [words[bin] for bin in np.searchsorted(bounds, values, side="right").tolist()]


class TableState(TypedDict):
    """The arguments of a `TableRenderer` in data.json."""

    literals: list[str]
    fields: Annotated[list[str], MinLen(1)]
    numbers: NumberFormat
    bounds: dict[str, list[float]]


@dataclass(frozen=True)
class TableRenderer:
    """Renders rows by a template.

    Args:
        literals: the text before each placeholder of the template, and after the last one.
        fields: the column of each placeholder.
        bounds: of the bins of each column that holds numbers, see `NumberFormat.fit`.
    """

    literals: Sequence[str]
    fields: Sequence[str]
    numbers: NumberFormat
    bounds: Mapping[str, Sequence[float]]
    is_pair = False
    required: ClassVar[Sequence[str]] = ()  # a blank cell is written as missing

    @property
    def columns(self) -> Sequence[str]:
        return list(dict.fromkeys(self.fields))

    def render(self, table: Table) -> Texts:
        words = {name: self._words(name, table) for name in self.columns}
        pieces: list[Sequence[str] | repeat[str]] = [repeat(self.literals[0])]
        for name, literal in zip(self.fields, self.literals[1:], strict=True):
            pieces += [words[name], repeat(literal)]
        return [("".join(row),) for row in zip(*pieces, strict=False)]

    def _words(self, name: str, table: Table) -> list[str]:
        if name not in table:
            raise DataError(f"no column {name!r}, expected {one_of(table)}")
        cells = table[name]
        if name not in self.bounds:
            return [
                " ".join(cell.split()) or MISSING if cell is not None else MISSING for cell in cells
            ]
        values = [None if cell is None else parse_number(cell) for cell in cells]
        for row, (cell, value) in enumerate(zip(cells, values, strict=True)):
            if cell is not None and value is None:
                raise DataError(f"row {row + 1}: {expected_number(name, cell)}")
        present = self.numbers.write(
            np.array([value for value in values if value is not None]), self.bounds[name]
        )
        words = iter(present)
        return [MISSING if value is None else next(words) for value in values]

    def state_dict(self) -> Mapping[str, object]:
        numbers = {
            "mode": self.numbers.mode,
            "bins": self.numbers.bins,
            "digits": self.numbers.digits,
        }
        bounds = {name: list(each) for name, each in self.bounds.items()}
        return {
            "literals": list(self.literals),
            "fields": list(self.fields),
            "numbers": numbers,
            "bounds": bounds,
        }


def restore_renderer(state: object) -> TableRenderer:
    """The renderer of a `state_dict`; raises DataError if none could have this state."""
    try:
        checked: TableState = validate(state, TableState)
    except ShapeError as error:
        raise DataError(f"renderer: {error}") from None
    literals, fields, bounds = checked["literals"], checked["fields"], checked["bounds"]
    if len(literals) != len(fields) + 1:
        raise DataError(
            f"renderer: expected {len(fields) + 1} literals around {len(fields)} fields"
        )
    for name, each in bounds.items():
        if name not in fields or not np.isfinite(each).all() or (np.diff(each) <= 0).any():
            raise DataError(
                f"renderer: bounds of {shorten(name)!r}: expected ascending numbers of a field"
            )
    return TableRenderer(literals, fields, checked["numbers"], bounds)


def parse_number(cell: str) -> float | None:
    """The finite number that a cell holds, or None."""
    value = float(cell) if is_number(cell) else math.nan
    return value if math.isfinite(value) else None


def expected_number(name: str, cell: str) -> str:
    return (
        f"column {name!r}: expected a finite number as in the training rows, got {shorten(cell)!r}"
    )
