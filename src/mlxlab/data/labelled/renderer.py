"""Rows as texts: templates whose placeholders are typed columns, and the bins of numbers."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlxlab.constraints import Ge, Le, MaxLen, MinLen
from mlxlab.data.dataset import Table
from mlxlab.data.labelled.types import ColumnType, TypedColumn, read_table, shorten, spell
from mlxlab.errors import ConfigError
from mlxlab.files.untrusted import ShapeError

MISSING = "missing"  # the word for a cell without a value
AMOUNTS = ("number", "integer")
TOKEN = re.compile(r"(\{\{|\}\}|\{[^{}]*\})")


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
        """The lower bounds of all bins but the first, ascending; each is a training value."""
        distinct, counts = np.unique(values, return_counts=True)
        if len(distinct) <= self.bins:
            return distinct[1:].tolist()
        bounds: list[float] = []
        in_bin = 0
        num_left = len(values)
        for value, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            # A bin holds an equal share of what is left: a frequent value takes no bins from the others.
            is_full = in_bin * (self.bins - len(bounds)) >= num_left
            if is_full and len(bounds) < self.bins - 1:
                bounds.append(value)
                num_left -= in_bin
                in_bin = 0
            in_bin += count
        return bounds

    def write_bins(self, values: np.ndarray, bounds: Sequence[float]) -> list[str]:
        """The bin of each number."""
        width = max(len(str(self.bins - 1)), 2)
        numbers = np.searchsorted(bounds, values, side="right")
        return [f"q{number:0{width}d}" for number in numbers]


@dataclass(frozen=True)
class Template:
    """The column of each placeholder, and the text before each of them and after the last one."""

    literals: tuple[str, ...]
    fields: Annotated[tuple[str, ...], MinLen(1)]

    @property
    def is_column(self) -> bool:
        """Whether this is one column alone, whose text is written as it stands."""
        return len(self.fields) == 1 and not any(self.literals)


def default_template(columns: Sequence[str]) -> Template:
    """`column: value` for each column, with commas between them."""
    starts = [f", {name}: " for name in columns]
    return Template((starts[0].removeprefix(", "), *starts[1:], ""), tuple(columns))


def parse_template(text: str) -> Template:
    """The parts of a template; `{{` and `}}` stand for braces. Raises ConfigError without a placeholder."""
    literals = [""]
    fields: list[str] = []
    for piece in TOKEN.split(text):
        if piece in ("{{", "}}"):
            literals[-1] += piece[0]
        elif piece.startswith("{") and piece.endswith("}"):
            fields.append(piece[1:-1])
            literals.append("")
        elif {"{", "}"}.isdisjoint(piece):
            literals[-1] += piece
        else:
            expected = "a placeholder such as {column}, or a doubled brace for the brace itself"
            raise ConfigError(f"data.template: expected {expected}, got {shorten(piece)}")
    if not fields:
        raise ConfigError("data.template: expected a placeholder such as {column}, got none")
    return Template(tuple(literals), tuple(fields))


@dataclass(frozen=True)
class RowRenderer:
    """Writes each row as a text, or as a pair of texts.

    Args:
        templates: of each text.
        types: of each column.
        bounds: of the bins of each column of numbers, see `NumberFormat.fit`.
    """

    templates: Annotated[tuple[Template, ...], MinLen(1), MaxLen(2)]
    types: dict[str, ColumnType]
    numbers: NumberFormat
    bounds: dict[str, list[float]]

    num_variants = 1

    def __post_init__(self) -> None:
        """Raises ShapeError for fields that do not go together: those of a file may be any."""
        amounts = {name for name, each in self.types.items() if each.kind in AMOUNTS}
        is_valid = amounts >= self.bounds.keys()
        for template in self.templates:
            is_valid &= len(template.literals) == len(template.fields) + 1
            is_valid &= self.types.keys() >= set(template.fields)
        for bounds in self.bounds.values():
            is_valid &= bool(np.isfinite(bounds).all() and (np.diff(bounds) > 0).all())
        if not is_valid:
            raise ShapeError("renderer", "expected templates of its columns, and ascending bounds")

    @property
    def is_pair(self) -> bool:
        return len(self.templates) == 2

    def choose(self, ids: np.ndarray, epoch: int, copies: int | np.ndarray) -> np.ndarray:
        return np.zeros(len(ids), np.int64)

    def render_all(self, table: Table) -> list[tuple[str, ...]]:
        return self.render(table)

    @property
    def required(self) -> Sequence[str]:
        """Columns that are a text of their own; a missing cell of another one is written as missing."""
        return [template.fields[0] for template in self.templates if template.is_column]

    def exact(self) -> "RowRenderer":
        """A renderer that writes all digits of numbers, for reports."""
        return replace(self, numbers=replace(self.numbers, mode="bins"), bounds={})

    def render(self, table: Table) -> list[tuple[str, ...]]:
        columns = read_table(table, self.types)
        texts = [self._render(template, columns) for template in self.templates]
        return list(zip(*texts, strict=True))

    def _render(self, template: Template, columns: Mapping[str, TypedColumn]) -> list[str]:
        if template.is_column:
            column = columns[template.fields[0]]
            return ["" if value is None else spell(value) for value in column.cells()]
        pieces: list[str | pa.Array] = [template.literals[0]]
        for name, literal in zip(template.fields, template.literals[1:], strict=True):
            pieces += [self._words(columns[name]), literal]
        return pc.binary_join_element_wise(*pieces, "").to_pylist()

    def _words(self, column: TypedColumn) -> pa.Array:
        """The word of each cell."""
        if column.name in self.bounds:
            amounts = np.array(column.values, np.float64)
            words = self.numbers.write_bins(amounts, self.bounds[column.name])
        elif column.type.kind in AMOUNTS and self.numbers.mode == "text":
            words = [f"{value:.{self.numbers.digits}g}" for value in column.values]
        else:
            words = [" ".join(spell(value).split()) for value in column.values]
        return pa.array(np.array([*words, MISSING], object)[column.codes], pa.string())

    def rules(self) -> object:
        """How texts are made: all but the categories that were seen."""
        types = {name: replace(each, categories=()) for name, each in self.types.items()}
        return replace(self, types=types)

    def state_dict(self) -> Mapping[str, object]:
        return asdict(self)


def fit_bounds(columns: Mapping[str, TypedColumn], numbers: NumberFormat) -> dict[str, list[float]]:
    """The bounds of the bins of numbers, by the training rows."""
    bounds: dict[str, list[float]] = {}
    for name, column in columns.items():
        if column.type.kind in AMOUNTS and numbers.mode == "bins":
            amounts = column.amounts()
            bounds[name] = numbers.fit(amounts[~np.isnan(amounts)])
    return bounds


def feature_columns(table: Table, types: Mapping[str, ColumnType]) -> dict[str, np.ndarray]:
    """Numbers (N,) as float64, and words (N,) of categories; columns of texts are left out."""
    columns: dict[str, np.ndarray] = {}
    for name, column in read_table(table, types).items():
        if column.type.kind == "category":
            words = [*map(spell, column.values), MISSING]
            columns[name] = np.array(words, object)[column.codes]
        elif column.type.kind != "text":
            columns[name] = column.amounts()
    return columns
