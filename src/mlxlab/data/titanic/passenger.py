"""A passenger of the Titanic: one row as recorded, None where a value is missing."""

from typing import NamedTuple


class Passenger(NamedTuple):
    """A row in Kaggle's columns; `survived` is None for rows without a label."""

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
        _, comma, rest = self.name.partition(", ")
        title, dot, _ = rest.partition(". ") if ". " in rest else rest.partition(".")
        return title.strip() if comma and dot and title.strip() else None

    @property
    def surname(self) -> str | None:
        """The text before ", "; None for a name of another pattern."""
        surname = self.name.partition(", ")[0].strip(" '\"")
        return surname if self.title and surname else None
