"""Passengers from a CSV file with Kaggle's columns, each value checked; nothing is guessed, a fault names its place."""

import os
import re
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from mlxlab.data.strict_csv import Field, read_csv
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
    """All rows of a CSV file; columns in any order, unknown ones are ignored.

    Args:
        path: the file.
        labelled: whether each row must have a label, and both labels must occur; else Survived may be absent or empty.

    Raises:
        InputNotFoundError: there is no such regular file.
        DataError: with file:line:column, what was found and what was expected.
    """
    rows = read_csv(path)
    header = next(rows)
    places = _columns(header, path, labelled)
    passengers: list[Passenger] = []
    seen: dict[int, int] = {}
    for row in rows:
        try:
            passenger = _passenger(row, places, labelled)
        except _Bad as bad:
            raise DataError(f"{path}:{bad.field.line}:{bad.field.column}: {bad}") from None
        field = row[places["PassengerId"]]
        if passenger.id in seen:
            earlier = f"PassengerId {passenger.id} is there already, in line {seen[passenger.id]}"
            raise DataError(f"{path}:{field.line}:{field.column}: {earlier}")
        seen[passenger.id] = field.line
        passengers.append(passenger)
    _check_rows(passengers, path, header, places, labelled)
    return passengers


class _Bad(Exception):
    def __init__(self, field: Field, column: str, expected: str) -> None:
        got = repr(field.text if len(field.text) <= 40 else field.text[:37] + "...") if field.text else "nothing"
        super().__init__(f"{column} is {got}, expected {expected}")
        self.field = field


def _columns(header: list[Field], path: str | os.PathLike, labelled: bool) -> dict[str, int]:
    names = [field.text.strip() for field in header]
    if len(names) == 1:
        for separator, called in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if separator in names[0]:
                column = names[0].index(separator) + 1
                raise DataError(f"{path}:1:{column}: fields are separated by {called}, expected commas")
    for place, name in enumerate(names):
        if name in COLUMNS and name in names[:place]:
            raise DataError(f"{path}:1:{header[place].column}: column {name} is there twice")
    for name in COLUMNS:
        if name not in names and (labelled or name != "Survived"):
            near = get_close_matches(name, [other for other in names if other not in COLUMNS], n=1, cutoff=0.5)
            hint = f" (is {near[0][:40]!r} meant?)" if near else ""
            raise DataError(f"{path}:1:1: column {name} is missing{hint}; expected {','.join(COLUMNS)}")
    return {name: names.index(name) for name in COLUMNS if name in names}


def _passenger(row: list[Field], places: dict[str, int], labelled: bool) -> Passenger:
    def value(column: str, parse: Callable[[str], Any], expected: str, empty: bool = False) -> Any:
        field = row[places[column]]
        text = field.text.strip()
        try:
            return None if empty and not text else parse(text)
        except ValueError:
            raise _Bad(field, column, expected) from None

    survived = value("Survived", _one_of("0", "1"), "0 or 1", not labelled) if "Survived" in places else None
    return Passenger(
        id=value("PassengerId", _whole(1, 2**53), "a whole number above 0"),
        survived=None if survived is None else int(survived),
        pclass=int(value("Pclass", _one_of("1", "2", "3"), "1, 2 or 3")),
        name=value("Name", _text, "a name"),
        sex=value("Sex", _one_of("male", "female"), "male or female"),
        age=value("Age", _decimal(130), "years from 0 to 130, or nothing", True),
        sibsp=value("SibSp", _whole(0, 50), "a whole number from 0 to 50"),
        parch=value("Parch", _whole(0, 50), "a whole number from 0 to 50"),
        ticket=value("Ticket", _text, "a ticket"),
        fare=value("Fare", _decimal(100_000), "pounds from 0 to 100000, or nothing", True),
        cabin=value("Cabin", _text, "a cabin or nothing", True),
        embarked=value("Embarked", _one_of("S", "C", "Q"), "S, C, Q or nothing", True),
    )


def _check_rows(
    rows: list[Passenger], path: str | os.PathLike, header: list[Field], places: dict[str, int], labelled: bool
) -> None:
    if not rows:
        raise DataError(f"{path}:2:1: there is no row after the header")
    labels = {row.survived for row in rows}
    if labelled and len(labels) == 1:
        column = header[places["Survived"]].column
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


def _whole(low: int, high: int) -> Callable[[str], int]:
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
