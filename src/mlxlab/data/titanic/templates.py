"""Renders a passenger as a sentence. Missing values are stated as missing, never imputed.

`basic`, `narrative`, `descriptive` and `story` express the row itself. `brief` and `full` use few regular words, and
add what follows from name and ticket: the size of the household, how many training rows share the ticket. `group` is
`brief` with the outcome of the other women and children of the same party among the training rows: it uses training
labels, and is therefore not a default.
"""

from collections.abc import Iterable
from string import Template
from typing import Annotated, TypedDict

from mlxlab.constraints import Ge, Le
from mlxlab.data.titanic.passenger import Passenger

VERSION = 1  # of the templates below: part of every fingerprint

BRIEF = "$role $class class, $title, family $household, ticket $party, fare $cost"
TEMPLATES = {
    "basic": "A $sex passenger, $age, in the $rank class, $family, paid $fare and embarked at $port.",
    "narrative": "$name, $person, boarded at $port as a passenger of the $rank class. $Pronoun paid $fare and "
    "travelled $family.",
    "descriptive": "Sex: $sex. Age: $years. Class: $rank. Port: $port. Family aboard: $family. Fare: $fare.",
    "story": "It was at $port that $person came aboard with a ticket of the $rank class, bought for $fare, to sail "
    "$family.",
    "brief": BRIEF + ".",
    "full": BRIEF + ", $age, cabin $deck, port $port.",
    "group": BRIEF + ", party $fate.",
}

AGES = (
    (1, "infant"),
    (13, "child"),
    (20, "teenager"),
    (30, "young adult"),
    (50, "middle-aged"),
    (65, "mature"),
)
ADJECTIVES = {"child": "young", "teenager": "teenage"}
FARES = ((10, "modest"), (30, "moderate"), (100, "substantial"))
COSTS = ((8, "least"), (15, "low"), (31, "middle"), (60, "high"))
ROLES = {
    ("male", True): "boy",
    ("male", False): "man",
    ("female", True): "girl",
    ("female", False): "woman",
}
RANKS = {1: "luxurious first", 2: "comfortable second", 3: "economical third"}
PORTS = {"S": "Southampton", "C": "Cherbourg", "Q": "Queenstown"}
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TITLES = {
    "Mr": "Mr",
    "Mrs": "Mrs",
    "Miss": "Miss",
    "Master": "Master",
    "Mlle": "Miss",
    "Ms": "Miss",
    "Mme": "Mrs",
}


class GroupStatistics(TypedDict):
    """Counts over the training rows. A row never counts itself, so training and other rows are treated alike."""

    tickets: dict[str, list[int]]  # ticket -> PassengerIds
    fates: dict[
        str, list[tuple[int, Annotated[int, Ge(0), Le(1)]]]
    ]  # party -> each woman and child, and survived


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


def render_sentence(row: Passenger, template: str, statistics: GroupStatistics) -> str:
    """The sentence of a passenger by a template's text, `statistics` being those of the training rows."""
    age = "of unknown age" if row.age is None else _band(row.age, AGES, "elderly")
    role = ROLES[row.sex, is_child(row)]
    person = f"{role} {age}" if row.age is None else f"{ADJECTIVES.get(age, age)} {role}"
    fare, cost = "an unknown fare", "unknown"
    if row.fare is not None:
        fare = f"a {_band(row.fare, FARES, 'premium')} fare of {row.fare:.2f} pounds"
        cost = _band(row.fare, COSTS, "highest")
    fields = {
        "age": age,
        "person": f"{'an' if person[0] in 'aeiou' else 'a'} {person}",
        "years": "unknown" if row.age is None else f"{round(row.age, 1):g} years",
        "sex": row.sex,
        "Pronoun": "She" if row.sex == "female" else "He",
        "rank": RANKS[row.pclass],
        "family": _family(row),
        "fare": fare,
        "port": PORTS.get(row.embarked or "", "an unknown port"),
        "name": f"{row.title} {row.surname}" if row.title and row.surname else "The passenger",
        "role": role,
        "class": RANKS[row.pclass].split()[1],
        "title": TITLES.get(row.title, "rare title") if row.title else "no title",
        "household": _size(1 + row.sibsp + row.parch),
        "party": _size(1 + count_companions(row, statistics)),
        "cost": cost,
        "deck": "unknown" if row.cabin is None else f"on deck {row.cabin[0].upper()}",
        "fate": party_outcome(row, statistics),
    }
    return Template(template).substitute(fields)


def is_child(row: Passenger) -> bool:
    """Under 13, or a boy by his title."""
    return row.title == "Master" or (row.age is not None and row.age < 13)


def _parties(row: Passenger) -> tuple[str, ...]:
    """Names of the parties that a row belongs to: that of its ticket and that of its family."""
    family = f"{row.surname}/{row.pclass}/{row.ticket[:-1]}/{row.embarked}"
    return (
        (f"ticket {row.ticket}", f"family {family}") if row.surname else (f"ticket {row.ticket}",)
    )


def _band(value: float, bands: tuple[tuple[float, str], ...], above: str) -> str:
    return next((word for end, word in bands if value < end), above)


def _size(people: int) -> str:
    return "alone" if people == 1 else "small" if people < 5 else "large"


def _family(row: Passenger) -> str:
    siblings = (
        f"{_count(row.sibsp)} {'sibling or spouse' if row.sibsp == 1 else 'siblings or spouses'}"
    )
    parents = (
        f"{_count(row.parch)} {'parent or child' if row.parch == 1 else 'parents or children'}"
    )
    relatives = [text for number, text in ((row.sibsp, siblings), (row.parch, parents)) if number]
    return f"with {' and '.join(relatives)}" if relatives else "alone"


def _count(number: int) -> str:
    return COUNTS[number] if number < len(COUNTS) else str(number)
