"""A passenger of the Titanic: one row, as it was recorded, with None where nothing was."""

from typing import NamedTuple


class Passenger(NamedTuple):
    """A row of Kaggle's columns; `survived` is None for rows whose label is not known."""

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
        """What stands between ", " and ". ": "Mr", "Mrs", "the Countess"; None for a name of another pattern."""
        _, comma, rest = self.name.partition(", ")
        title, dot, _ = rest.partition(". ") if ". " in rest else rest.partition(".")
        return title.strip() if comma and dot and title.strip() else None

    @property
    def surname(self) -> str | None:
        """What stands before ", "; None for a name of another pattern."""
        surname = self.name.partition(", ")[0].strip(" '\"")
        return surname if self.title and surname else None
