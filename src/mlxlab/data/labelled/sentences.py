"""Rows as sentences: Jinja templates over typed cells, derived values, and what groups of training rows have in common.

`data/titanic/titanic.yaml` shows all of it. A template sees each column by its name (a missing cell is `none`), the
tables in `words`, what `let` sets, and for each group the values of the other training rows in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, TypedDict

import jinja2
import numpy as np

from mlxlab.data.cache import content_key
from mlxlab.data.dataset import Table
from mlxlab.data.labelled.types import (
    ColumnType,
    Kind,
    Location,
    TypedColumn,
    Types,
    number_of_row,
    read_table,
)
from mlxlab.data.rng import Stream, counter_hash
from mlxlab.data.sources.messages import shorten
from mlxlab.errors import DataError
from mlxlab.files.untrusted import validate

Row = dict[str, Any]
Members = dict[str, list[tuple[int, str]]]  # group -> (id, value) of each training row in it


@dataclass(frozen=True)
class Group:
    """Training rows that have something in common.

    Args:
        keys: templates that name the groups of a row; an empty name is none.
        value: template of what others see of a training row; an empty one is not seen.
        templates: those that read it; for others it is not fitted.
    """

    keys: list[str]
    value: str
    templates: list[str]


@dataclass(frozen=True)
class SentenceRules:
    """How rows become sentences, as a YAML file says it.

    Args:
        target: the column of the label, a whole number.
        label_names: what a label is called, by its cell.
        id_column: whole numbers that tell rows apart; a row is never in its own group.
        types: of the other columns.
        checks: conditions on the cells of a column.
        words: tables for templates, such as the words of ages.
        let: Jinja statements that set further values.
        groups: by name.
        templates: the text of a sentence, by name.
    """

    target: str
    label_names: dict[str, str]
    id_column: str
    types: dict[str, Kind]
    checks: dict[str, str]
    words: dict[str, Any]
    let: str
    groups: dict[str, Group]
    templates: dict[str, str]

    def read(self, table: Table, location: Location = number_of_row) -> list[Row]:
        """Typed rows; raises DataError with the location of a cell that is not what the rules say."""
        types = {name: ColumnType(kind) for name, kind in self.types.items()}
        if self.target in table:
            types[self.target] = ColumnType("integer")
        columns = read_table(table, types, location)
        for name, column in columns.items():
            if name in self.checks:
                _check(column, self.checks[name])
        cells = [column.cells() for column in columns.values()]
        return [dict(zip(columns, row, strict=True)) for row in zip(*cells, strict=True)]

    def render(self, row: Row, templates: Sequence[str]) -> list[str]:
        """The text of each of these templates."""
        no_others = dict.fromkeys(self.groups, ())
        template = _compile(self.let, *templates)
        module = template.make_module({**self.words, **no_others, **row})
        return [getattr(module, f"text_{number}") for number in range(len(templates))]


class SentenceState(TypedDict):
    """A fitted renderer in data.json."""

    templates: list[str]
    seed: int
    members: dict[str, Members]
    rules: str


@dataclass(frozen=True)
class SentenceRenderer:
    """Writes each row as a sentence, by one of several templates that is drawn by the row's id: a `Renderer`.

    Args:
        names: the templates to draw from.
        seed: of the draws.
        members: of each group that one of the templates reads, see `fit`.
    """

    spec: SentenceRules
    names: Sequence[str]
    seed: int
    members: Mapping[str, Members] = field(default_factory=dict)

    is_pair = False
    required = ()

    @property
    def types(self) -> Types:
        return {name: ColumnType(kind) for name, kind in self.spec.types.items()}

    @property
    def num_variants(self) -> int:
        return len(self.names)

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The groups that the templates read."""
        groups = self.spec.groups.items()
        return {name: group for name, group in groups if set(group.templates) & set(self.names)}

    def fit(self, rows: Sequence[Row]) -> "SentenceRenderer":
        """A renderer with the groups of these training rows."""
        members: dict[str, Members] = {name: {} for name in self.groups}
        for name, group in self.groups.items():
            for row in rows:
                value, *keys = self.spec.render(row, [group.value, *group.keys])
                for key in keys:
                    if key and value:
                        pair = (row[self.spec.id_column], value)
                        members[name].setdefault(key, []).append(pair)
        return replace(self, members=members)

    def choose(self, ids: np.ndarray, epoch: int = 0, copies: int | np.ndarray = 0) -> np.ndarray:
        """(N,) the template of each row: a function of (id, seed, epoch, copy). Copy 0 is that of an evaluation."""
        draws = counter_hash(self.seed, Stream.TEMPLATE, epoch, copies, ids)
        return (draws % np.uint64(self.num_variants)).astype(np.int64)

    def render(self, table: Table) -> list[tuple[str]]:
        """The sentence of each row in an evaluation."""
        rows = self.spec.read(table)
        chosen = self.choose(np.array([row[self.spec.id_column] for row in rows], np.int64))
        return [(self.sentences(row)[k],) for row, k in zip(rows, chosen, strict=True)]

    def render_all(self, table: Table) -> list[tuple[str]]:
        """Every sentence of every row, row by row."""
        return [(text,) for row in self.spec.read(table) for text in self.sentences(row)]

    def sentences(self, row: Row) -> list[str]:
        """The sentence of a row by each template."""
        others = {name: list(self._others(name, row)) for name in self.groups}
        templates = [self.spec.templates[name] for name in self.names]
        return self.spec.render({**row, **others}, templates)

    def _others(self, name: str, row: Row) -> Iterator[str]:
        """The values of the other training rows in the groups of a row."""
        for key in self.spec.render(row, self.groups[name].keys):
            for number, value in self.members[name].get(key, ()):
                if number != row[self.spec.id_column]:
                    yield value

    def rules(self) -> object:
        return [repr(self.spec)]

    def state_dict(self) -> SentenceState:
        return {
            "templates": list(self.names),
            "seed": self.seed,
            "members": dict(self.members),
            "rules": content_key(rules=self.rules()),
        }


def restore_sentences(state: Any, spec: SentenceRules) -> SentenceRenderer:
    """The renderer of a `state_dict`; raises ShapeError, and DataError if it had other rules than these."""
    checked = validate(state, SentenceState)
    names = checked["templates"]
    renderer = SentenceRenderer(spec, names, checked["seed"], checked["members"])
    is_fitted = renderer.members.keys() == renderer.groups.keys()
    is_known = bool(names) and spec.templates.keys() >= set(names)
    if not (is_known and is_fitted and renderer.state_dict() == checked):
        raise DataError(f"renderer: expected the templates {', '.join(spec.templates)}")
    return renderer


def band(value: float, bands: Sequence[tuple[float, str]]) -> str:
    """The word of the first band whose end is above a number: `{{ Age | band(ages) }}`."""
    return next(word for end, word in bands if value < end)


@lru_cache
def _compile(let: str, *templates: str) -> jinja2.Template:
    """A template that sets `text_0`, `text_1` and so on."""
    texts = enumerate(templates)
    sets = [f"{{% set text_{number} %}}{text}{{% endset %}}" for number, text in texts]
    return ENVIRONMENT.from_string(let + "".join(sets))


def _check(column: TypedColumn, condition: str) -> None:
    """Raises DataError for a cell for which the condition does not hold."""
    holds = _compile_condition(condition)
    for code, value in [*enumerate(column.values), (-1, None)]:
        if not holds({column.name: value}) and code in column.codes:
            got = f"expected {condition}, got {shorten(value)}"
            raise DataError(f"{column.where(code)}: {got}")


ENVIRONMENT = jinja2.Environment(
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
ENVIRONMENT.filters["band"] = band
_compile_condition = lru_cache(ENVIRONMENT.compile_expression)
