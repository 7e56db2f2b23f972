"""A passenger of the Titanic, and how passengers are parsed from CSV with Kaggle's columns."""

import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mlxlab.data.dataset import Table
from mlxlab.data.strict_csv import Field, parse_csv
from mlxlab.errors import DataError


class Passenger(NamedTuple):
    """A row as recorded, None where a value is missing; `survived` is None for rows without a label."""

    id: int
    survived: int | None
    pclass: int
    name: str
    sex: str
    age: float | None
    sibsp: int
    parch: int
    ticket: str
    fare: float | None
    cabin: str | None
    embarked: str | None

    @property
    def title(self) -> str | None:
        """The text between ", " and ". ": "Mr", "Mrs", "the Countess"; None for a name of another pattern."""
        _, comma, given_names = self.name.partition(", ")
        title, dot, _ = given_names.partition(". " if ". " in given_names else ".")
        return title.strip() if comma and dot and title.strip() else None

    @property
    def surname(self) -> str | None:
        """The text before ", "; None for a name of another pattern."""
        surname = self.name.partition(", ")[0].strip(" '\"")
        return surname if self.title and surname else None


class Column(NamedTuple):
    """The values that are valid in a column: those of a type, a pattern and bounds."""

    kind: type[int] | type[float] | type[str]
    pattern: re.Pattern[str]
    expected: str  # for messages
    low: float = 0
    high: float = 0  # 0 sets no bounds
    may_be_empty: bool = False


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.ASCII | re.DOTALL)


# No sign, no exponent, no inf, no nan.
INTEGER, DECIMAL, TEXT = (
    _pattern(r"\d{1,16}"),
    _pattern(r"\d{1,9}(\.\d{0,17})?|\.\d{1,17}"),
    _pattern(".+"),
)
COLUMNS = {  # in the order of the fields of `Passenger`
    "PassengerId": Column(int, INTEGER, "a whole number above 0", 1, 2**53),
    "Survived": Column(int, _pattern("[01]"), "0 or 1"),
    "Pclass": Column(int, _pattern("[123]"), "1, 2 or 3"),
    "Name": Column(str, TEXT, "a name"),
    "Sex": Column(str, _pattern("male|female"), "male or female"),
    "Age": Column(float, DECIMAL, "years from 0 to 130, or nothing", 0, 130, may_be_empty=True),
    "SibSp": Column(int, INTEGER, "a whole number from 0 to 50", 0, 50),
    "Parch": Column(int, INTEGER, "a whole number from 0 to 50", 0, 50),
    "Ticket": Column(str, TEXT, "a ticket"),
    "Fare": Column(
        float, DECIMAL, "pounds from 0 to 100000, or nothing", 0, 100_000, may_be_empty=True
    ),
    "Cabin": Column(str, TEXT, "a cabin or nothing", may_be_empty=True),
    "Embarked": Column(str, _pattern("[SCQ]"), "S, C, Q or nothing", may_be_empty=True),
}


def parse_passengers(data: bytes, path: str | os.PathLike[str], labelled: bool) -> list[Passenger]:
    """All rows of the CSV file `path` that holds `data`; columns in any order, unknown ones are ignored.

    Args:
        labelled: every row must have a label, and both labels must occur; else Survived may be absent or empty.

    Raises:
        DataError: with file:line:column, the value and what was expected.
    """
    rows = parse_csv(data, path)
    header = next(rows)
    indices = _column_indices(header, path, labelled)
    passengers: list[Passenger] = []
    field_of_id: dict[int, Field] = {}
    for row in rows:
        fields = {name: row[index] for name, index in indices.items()}
        values = (
            _parse(fields[name], name, path, labelled) if name in fields else None
            for name in COLUMNS
        )
        passenger, field = Passenger._make(values), fields["PassengerId"]
        if (first := field_of_id.setdefault(passenger.id, field)) is not field:
            duplicate = f"duplicate PassengerId {passenger.id}, first used in line {first.line}"
            raise DataError(f"{path}:{field.line}:{field.column}: {duplicate}")
        passengers.append(passenger)
    if not passengers:
        raise DataError(f"{path}:2:1: no rows after the header")
    labels = {passenger.survived for passenger in passengers}
    if labelled and len(labels) == 1:
        message = f"Survived is {labels.pop()} in all {len(passengers)} rows, expected both 0 and 1"
        raise DataError(f"{path}:2:{header[indices['Survived']].column}: {message}")
    return passengers


def passengers_of(table: Table) -> list[Passenger]:
    """The passengers of a table with Kaggle's columns, in which Survived may be absent or empty.

    Raises:
        DataError: a column is missing, or a value is malformed.
    """
    if missing := _missing_columns(list(table), labelled=False):
        raise DataError(missing)
    columns, passengers = {name: table[name] for name in COLUMNS if name in table}, []
    for row, cells in enumerate(zip(*columns.values(), strict=True)):
        texts = dict(zip(columns, cells, strict=True))
        try:
            values = (_value(texts.get(name) or "", name, labelled=False) for name in COLUMNS)
            passengers.append(Passenger._make(values))
        except ValueError as error:
            raise DataError(f"row {row + 1}: {error}") from None
    return passengers


def table_of(passengers: Iterable[Passenger]) -> Table:
    """The inverse of `passengers_of`."""
    rows = [
        [None if value is None else str(value) for value in passenger] for passenger in passengers
    ]
    return dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))


def _parse(
    field: Field, name: str, path: str | os.PathLike[str], labelled: bool
) -> int | float | str | None:
    try:
        return _value(field.text, name, labelled)
    except ValueError as error:
        raise DataError(f"{path}:{field.line}:{field.column}: {error}") from None


def _value(cell: str, name: str, labelled: bool) -> int | float | str | None:
    column, text = COLUMNS[name], cell.strip()
    if not text and (column.may_be_empty or (name == "Survived" and not labelled)):
        return None
    if column.pattern.fullmatch(text):
        value = column.kind(text)
        if isinstance(value, str) or not column.high or column.low <= value <= column.high:
            return value
    got = repr(cell if len(cell) <= 40 else cell[:37] + "...") if cell else "nothing"
    raise ValueError(f"{name} is {got}, expected {column.expected}")


def _column_indices(
    header: list[Field], path: str | os.PathLike[str], labelled: bool
) -> dict[str, int]:
    names = [field.text.strip() for field in header]
    if len(names) == 1:
        for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if separator in names[0]:
                column = names[0].index(separator) + 1
                text = f"fields are separated by {name}, expected commas"
                raise DataError(f"{path}:1:{column}: {text}")
    for index, name in enumerate(names):
        if name in COLUMNS and name in names[:index]:
            raise DataError(f"{path}:1:{header[index].column}: column {name} occurs twice")
    if missing := _missing_columns(names, labelled):
        raise DataError(f"{path}:1:1: {missing}")
    return {name: names.index(name) for name in COLUMNS if name in names}


def _missing_columns(names: Sequence[str], labelled: bool) -> str:
    """The message on all missing columns; "" if there are none."""
    missing = [name for name in COLUMNS if name not in names and (labelled or name != "Survived")]
    if not missing:
        return ""
    return f"missing columns: {', '.join(missing)}; expected {','.join(COLUMNS)}"
