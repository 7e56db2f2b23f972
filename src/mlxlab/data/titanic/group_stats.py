"""Group statistics of the training rows: who shares a ticket, and how the members of a party fared."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, TypedDict

from mlxlab.constraints import Ge, Le
from mlxlab.data.titanic.passenger import Passenger


class StatisticsState(TypedDict):
    """`GroupStatistics` as JSON."""

    tickets: dict[str, list[int]]
    fates: dict[str, list[tuple[int, Annotated[int, Ge(0), Le(1)]]]]


@dataclass(frozen=True)
class GroupStatistics:
    """Counts over the training rows. A row never counts itself, so training and other rows are treated alike.

    Args:
        tickets: ticket -> PassengerIds.
        fates: party -> PassengerId of each woman and child -> survived.
    """

    tickets: dict[str, list[int]] = field(default_factory=dict)
    fates: dict[str, dict[int, int]] = field(default_factory=dict)

    def companions(self, row: Passenger) -> int:
        """Others on the same ticket."""
        return sum(number != row.id for number in self.tickets.get(row.ticket, ()))

    def party_outcome(self, row: Passenger) -> str:
        """The outcome of the other women and children of the party."""
        parties = (self.fates.get(party, {}) for party in _parties(row))
        outcomes = {survived for party in parties for number, survived in party.items() if number != row.id}
        return {(): "untold", (0,): "lost", (1,): "saved"}.get(tuple(outcomes), "divided")

    def state_dict(self) -> StatisticsState:
        return {"tickets": self.tickets, "fates": {party: list(fates.items()) for party, fates in self.fates.items()}}


def fit_statistics(rows: Iterable[Passenger], labels: bool) -> GroupStatistics:
    """Statistics of training rows; the outcomes of parties only with `labels`."""
    statistics = GroupStatistics()
    for row in rows:
        statistics.tickets.setdefault(row.ticket, []).append(row.id)
        if labels and row.survived is not None and (row.sex == "female" or is_child(row)):
            for party in _parties(row):
                statistics.fates.setdefault(party, {})[row.id] = row.survived
    return statistics


def load_statistics(state: StatisticsState) -> GroupStatistics:
    return GroupStatistics(state["tickets"], {party: dict(fates) for party, fates in state["fates"].items()})


def is_child(row: Passenger) -> bool:
    """Under 13, or a boy by his title."""
    return row.title == "Master" or (row.age is not None and row.age < 13)


def _parties(row: Passenger) -> tuple[str, ...]:
    """Names of the parties that a row belongs to: that of its ticket and that of its family."""
    family = f"{row.surname}/{row.pclass}/{row.ticket[:-1]}/{row.embarked}"
    return (f"ticket {row.ticket}", f"family {family}") if row.surname else (f"ticket {row.ticket}",)
