"""Renders a passenger as a sentence. Missing values are stated as missing, never imputed.

`basic`, `narrative`, `descriptive` and `story` express the row itself. `brief` and `full` use few regular words, and
add what follows from name and ticket: the size of the household, how many training rows share the ticket. `group` is
`brief` with the outcome of the other women and children of the same party among the training rows: it uses training
labels, and is therefore not a default.
"""

from string import Template

from mlxlab.data.titanic.group_stats import GroupStatistics, count_companions, is_child, party_outcome
from mlxlab.data.titanic.passenger import Passenger

VERSION = 1  # of the words below: part of every fingerprint

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
USES_LABELS = ("group",)

AGES = ((1, "infant"), (13, "child"), (20, "teenager"), (30, "young adult"), (50, "middle-aged"), (65, "mature"))
ADJECTIVES = {"child": "young", "teenager": "teenage"}
FARES = ((10, "modest"), (30, "moderate"), (100, "substantial"))
COSTS = ((8, "least"), (15, "low"), (31, "middle"), (60, "high"))
RANKS = {1: "luxurious first", 2: "comfortable second", 3: "economical third"}
PORTS = {"S": "Southampton", "C": "Cherbourg", "Q": "Queenstown"}
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
TITLES = {"Mr": "Mr", "Mrs": "Mrs", "Miss": "Miss", "Master": "Master", "Mlle": "Miss", "Ms": "Miss", "Mme": "Mrs"}


def render_sentence(passenger: Passenger, template: str, statistics: GroupStatistics) -> str:
    """The sentence of `passenger` by a template's text, `statistics` being those of the training rows."""
    return Template(template).substitute(_row_fields(passenger) | _derived_fields(passenger, statistics))


def _row_fields(row: Passenger) -> dict[str, str]:
    """Words for the columns of the row."""
    age = "of unknown age" if row.age is None else _band(row.age, AGES, "elderly")
    noun = _role(row)
    person = f"{noun} {age}" if row.age is None else f"{ADJECTIVES.get(age, age)} {noun}"
    fare = "an unknown fare"
    if row.fare is not None:
        fare = f"a {_band(row.fare, FARES, 'premium')} fare of {row.fare:.2f} pounds"
    return {
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
    }


def _derived_fields(row: Passenger, statistics: GroupStatistics) -> dict[str, str]:
    """Words derived from name, cabin and ticket, and from the training rows."""
    return {
        "role": _role(row),
        "class": RANKS[row.pclass].split()[1],
        "title": TITLES.get(row.title, "rare title") if row.title else "no title",
        "household": _size(1 + row.sibsp + row.parch),
        "party": _size(1 + count_companions(row, statistics)),
        "cost": "unknown" if row.fare is None else _band(row.fare, COSTS, "highest"),
        "deck": "unknown" if row.cabin is None else f"on deck {row.cabin[0].upper()}",
        "fate": party_outcome(row, statistics),
    }


def _band(value: float, bands: tuple[tuple[float, str], ...], above: str) -> str:
    return next((word for end, word in bands if value < end), above)


def _size(people: int) -> str:
    return "alone" if people == 1 else "small" if people < 5 else "large"


def _role(row: Passenger) -> str:
    if row.sex == "male":
        return "boy" if is_child(row) else "man"
    return "girl" if is_child(row) else "woman"


def _family(row: Passenger) -> str:
    spouses = f"{_count(row.sibsp)} {'sibling or spouse' if row.sibsp == 1 else 'siblings or spouses'}"
    parents = f"{_count(row.parch)} {'parent or child' if row.parch == 1 else 'parents or children'}"
    if row.sibsp and row.parch:
        return f"with {spouses} and {parents}"
    return f"with {spouses if row.sibsp else parents}" if row.sibsp or row.parch else "alone"


def _count(number: int) -> str:
    return COUNTS[number] if number < len(COUNTS) else str(number)
