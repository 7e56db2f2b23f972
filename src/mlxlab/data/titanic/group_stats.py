"""What is learned from the training rows alone, before any training: who shares a ticket, a party."""

from collections.abc import Iterable
from typing import Any

from mlxlab.data.titanic.passenger import Passenger


class GroupStatistics:
    """Counts over the training rows. A row never counts itself, so training and other rows are treated alike."""

    def __init__(self, tickets: dict[str, list[int]], fates: dict[str, dict[int, int]]) -> None:
        self.tickets = tickets  # ticket -> PassengerIds
        self.fates = fates  # party -> PassengerId of each woman and child -> survived

    def companions(self, row: Passenger) -> int:
        """Others on the same ticket."""
        return sum(number != row.id for number in self.tickets.get(row.ticket, ()))

    def fate(self, row: Passenger) -> str:
        """How the other women and children of the party fared."""
        known: dict[int, int] = {}
        for party in _parties(row):
            known |= self.fates.get(party, {})
        known.pop(row.id, None)
        if not known:
            return "untold"
        saved = sum(known.values())
        return "saved" if saved == len(known) else "divided" if saved else "lost"

    def state_dict(self) -> dict[str, Any]:
        fates = {party: [[number, survived] for number, survived in one.items()] for party, one in self.fates.items()}
        return {"tickets": self.tickets, "fates": fates}


def fit_statistics(rows: Iterable[Passenger], labels: bool) -> GroupStatistics:
    """Statistics of training rows; the fates of parties only with `labels`."""
    statistics = GroupStatistics({}, {})
    for row in rows:
        statistics.tickets.setdefault(row.ticket, []).append(row.id)
        if labels and row.survived is not None and (row.sex == "female" or is_child(row)):
            for party in _parties(row):
                statistics.fates.setdefault(party, {})[row.id] = row.survived
    return statistics


def load_statistics(state: dict[str, Any]) -> GroupStatistics:
    """Statistics from their `state_dict`."""
    fates = {party: {int(number): int(survived) for number, survived in one} for party, one in state["fates"].items()}
    return GroupStatistics(state["tickets"], fates)


def is_child(row: Passenger) -> bool:
    """Under 13, or a boy by his title."""
    return row.title == "Master" or (row.age is not None and row.age < 13)


def _parties(row: Passenger) -> tuple[str, ...]:
    """Names of the parties a row belongs to: those of its ticket, and those of its family."""
    family = f"{row.surname}/{row.pclass}/{row.ticket[:-1]}/{row.embarked}"
    return (f"ticket {row.ticket}", f"family {family}") if row.surname else (f"ticket {row.ticket}",)
