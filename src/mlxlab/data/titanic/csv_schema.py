"""Parses passengers from CSV with Kaggle's columns. Every value is checked; errors name file, line and column."""

import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from mlxlab.data.input_files import read_input_file
from mlxlab.data.strict_csv import Field, parse_csv
from mlxlab.data.titanic.passenger import Passenger
from mlxlab.errors import DataError

COLUMNS = (
    "PassengerId",
    "Survived",
    "Pclass",
    "Name",
    "Sex",
    "Age",
    "SibSp",
    "Parch",
    "Ticket",
    "Fare",
    "Cabin",
    "Embarked",
)
NUMBER = re.compile(r"\d{1,9}(\.\d{0,17})?|\.\d{1,17}")  # no sign, no exponent, no inf, no nan


def read_passengers(path: str | os.PathLike, labelled: bool) -> list[Passenger]:
    """All rows of a CSV file; see `parse_passengers`.

    Raises:
        InputNotFoundError: there is no such regular file.
    """
    return parse_passengers(read_input_file(path), path, labelled)


def parse_passengers(data: bytes, path: str | os.PathLike, labelled: bool) -> list[Passenger]:
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
    line_of_id: dict[int, int] = {}
    for row in rows:
        try:
            passenger = _parse_passenger(row, indices, labelled)
        except _InvalidValue as error:
            raise DataError(f"{path}:{error.field.line}:{error.field.column}: {error}") from None
        field = row[indices["PassengerId"]]
        if passenger.id in line_of_id:
            duplicate = f"duplicate PassengerId {passenger.id}, first used in line {line_of_id[passenger.id]}"
            raise DataError(f"{path}:{field.line}:{field.column}: {duplicate}")
        line_of_id[passenger.id] = field.line
        passengers.append(passenger)
    _check_labels(passengers, path, header, indices, labelled)
    return passengers


class _InvalidValue(Exception):
    def __init__(self, field: Field, column: str, expected: str) -> None:
        got = repr(field.text if len(field.text) <= 40 else field.text[:37] + "...") if field.text else "nothing"
        super().__init__(f"{column} is {got}, expected {expected}")
        self.field = field


def _column_indices(header: list[Field], path: str | os.PathLike, labelled: bool) -> dict[str, int]:
    names = [field.text.strip() for field in header]
    if len(names) == 1:
        for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if separator in names[0]:
                column = names[0].index(separator) + 1
                raise DataError(f"{path}:1:{column}: fields are separated by {name}, expected commas")
    for index, name in enumerate(names):
        if name in COLUMNS and name in names[:index]:
            raise DataError(f"{path}:1:{header[index].column}: column {name} occurs twice")
    for name in COLUMNS:
        if name not in names and (labelled or name != "Survived"):
            near = get_close_matches(name, [other for other in names if other not in COLUMNS], n=1, cutoff=0.5)
            hint = f" (did you mean {near[0][:40]!r}?)" if near else ""
            raise DataError(f"{path}:1:1: column {name} is missing{hint}; expected {','.join(COLUMNS)}")
    return {name: names.index(name) for name in COLUMNS if name in names}


def _parse_passenger(row: list[Field], indices: dict[str, int], labelled: bool) -> Passenger:
    def value(column: str, parse: Callable[[str], Any], expected: str, empty: bool = False) -> Any:
        field = row[indices[column]]
        text = field.text.strip()
        try:
            return None if empty and not text else parse(text)
        except ValueError:
            raise _InvalidValue(field, column, expected) from None

    survived = value("Survived", _one_of("0", "1"), "0 or 1", not labelled) if "Survived" in indices else None
    return Passenger(
        id=value("PassengerId", _integer(1, 2**53), "a whole number above 0"),
        survived=None if survived is None else int(survived),
        pclass=int(value("Pclass", _one_of("1", "2", "3"), "1, 2 or 3")),
        name=value("Name", _text, "a name"),
        sex=value("Sex", _one_of("male", "female"), "male or female"),
        age=value("Age", _decimal(130), "years from 0 to 130, or nothing", True),
        sibsp=value("SibSp", _integer(0, 50), "a whole number from 0 to 50"),
        parch=value("Parch", _integer(0, 50), "a whole number from 0 to 50"),
        ticket=value("Ticket", _text, "a ticket"),
        fare=value("Fare", _decimal(100_000), "pounds from 0 to 100000, or nothing", True),
        cabin=value("Cabin", _text, "a cabin or nothing", True),
        embarked=value("Embarked", _one_of("S", "C", "Q"), "S, C, Q or nothing", True),
    )


def _check_labels(
    rows: list[Passenger], path: str | os.PathLike, header: list[Field], indices: dict[str, int], labelled: bool
) -> None:
    if not rows:
        raise DataError(f"{path}:2:1: no rows after the header")
    labels = {row.survived for row in rows}
    if labelled and len(labels) == 1:
        column = header[indices["Survived"]].column
        raise DataError(f"{path}:2:{column}: Survived is {labels.pop()} in all {len(rows)} rows, expected both 0 and 1")


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return parse


def _text(text: str) -> str:
    if not text:
        raise ValueError
    return text


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 17 and low <= int(text) <= high):
            raise ValueError
        return int(text)

    return parse


def _decimal(high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not (text.isascii() and NUMBER.fullmatch(text) and float(text) <= high):
            raise ValueError
        return float(text)

    return parse
