"""Group statistics of the training rows: who shares a ticket, and how the members of a party fared."""

from collections.abc import Iterable
from typing import Annotated, TypedDict

from mlxlab.constraints import Ge, Le
from mlxlab.data.titanic.passenger import Passenger


class GroupStatistics(TypedDict):
    """Counts over the training rows. A row never counts itself, so training and other rows are treated alike."""

    tickets: dict[str, list[int]]  # ticket -> PassengerIds
    fates: dict[str, list[tuple[int, Annotated[int, Ge(0), Le(1)]]]]  # party -> each woman and child, and survived


def fit_statistics(rows: Iterable[Passenger], labels: bool) -> GroupStatistics:
    """Statistics of training rows; the outcomes of parties only with `labels`."""
    statistics: GroupStatistics = {"tickets": {}, "fates": {}}
    for row in rows:
        statistics["tickets"].setdefault(row.ticket, []).append(row.id)
        if labels and row.survived is not None and (row.sex == "female" or is_child(row)):
            for party in _parties(row):
                statistics["fates"].setdefault(party, []).append((row.id, row.survived))
    return statistics


def count_companions(row: Passenger, statistics: GroupStatistics) -> int:
    """Others on the same ticket."""
    return sum(number != row.id for number in statistics["tickets"].get(row.ticket, ()))


def party_outcome(row: Passenger, statistics: GroupStatistics) -> str:
    """The outcome of the other women and children of the party."""
    fates = (fate for party in _parties(row) for fate in statistics["fates"].get(party, ()))
    outcomes = {survived for number, survived in fates if number != row.id}
    return {(): "untold", (0,): "lost", (1,): "saved"}.get(tuple(outcomes), "divided")


def is_child(row: Passenger) -> bool:
    """Under 13, or a boy by his title."""
    return row.title == "Master" or (row.age is not None and row.age < 13)


def _parties(row: Passenger) -> tuple[str, ...]:
    """Names of the parties that a row belongs to: that of its ticket and that of its family."""
    family = f"{row.surname}/{row.pclass}/{row.ticket[:-1]}/{row.embarked}"
    return (f"ticket {row.ticket}", f"family {family}") if row.surname else (f"ticket {row.ticket}",)
