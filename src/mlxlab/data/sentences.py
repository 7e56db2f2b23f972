"""A passenger as a sentence. What is missing is said to be missing; nothing is filled in.

`basic`, `narrative`, `descriptive` and `story` tell the row itself. `full` adds what the ticket, the name and the cabin
give away, in few and regular words. `group` adds how the women and children of the same party fared, as far as they are
among the training rows: it uses training labels, so it is off unless named.
"""

from string import Template

from mlxlab.data.passenger import Passenger
from mlxlab.data.statistics import Statistics

VERSION = 1  # of the words below: part of every fingerprint

TEMPLATES = {
    "basic": "A $age_word $sex travelling in $rank class, $family, paid $fare and embarked at $port.",
    "narrative": "$name, $age_word $noun, boarded at $port as a $rank class passenger. $Pronoun paid $fare and "
    "travelled $family.",
    "descriptive": "Sex: $sex. Age: $years. Class: $rank. Port: $port. Family aboard: $family. Fare: $fare.",
    "story": "It was at $port that $article $age_word $noun came aboard with a $rank class ticket, bought for $fare, "
    "and sailed $family.",
    "full": "$role $title $rank class . $role in $rank . age $age_word . family $size $relatives . ticket $party . "
    "fare $each each . deck $deck . port $port . $rank from $port . name $surname .",
    "group": "$role $title $rank class . $role in $rank . age $age_word . family $size $relatives . ticket $party . "
    "fare $each each . deck $deck . port $port . $rank from $port . name $surname . party $fate .",
}
USES_LABELS = ("group",)

AGES = ((1, "infant"), (13, "child"), (20, "teenage"), (30, "young adult"), (50, "middle-aged"), (65, "mature"))
FARES = ((10, "modest"), (30, "moderate"), (100, "substantial"))
EACH = ((0.01, "free"), (7.75, "lowest"), (8.1, "low"), (10, "small"), (14, "fair"), (28, "high"), (45, "higher"))
RANKS = {1: "luxurious first", 2: "comfortable second", 3: "economical third"}
PORTS = {"S": "Southampton", "C": "Cherbourg", "Q": "Queenstown"}
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SIZES = ("alone", "pair", "three", "four", "five", "large", "large")
TITLES = {"Mr": "Mr", "Mrs": "Mrs", "Miss": "Miss", "Master": "Master", "Mlle": "Miss", "Ms": "Miss", "Mme": "Mrs"}
TITLES |= {"Dr": "Doctor", "Rev": "Reverend", "Col": "Officer", "Major": "Officer", "Capt": "Officer"}


def say(passenger: Passenger, template: str, statistics: Statistics) -> str:
    """The sentence of `passenger` by a template's text, `statistics` being those of the training rows."""
    return Template(template).substitute(_told(passenger) | _inferred(passenger, statistics))


def _told(row: Passenger) -> dict[str, str]:
    """Words for what the row itself says."""
    age_word = "elderly" if row.age is not None else "unknown age"
    age_word = next((word for end, word in AGES if row.age is not None and row.age < end), age_word)
    band = next((word for end, word in FARES if row.fare is not None and row.fare < end), "premium")
    name = f"{row.title} {row.surname}" if row.title and row.surname else "The passenger"
    return {
        "age_word": age_word,
        "article": "an" if age_word[0] in "aeiou" else "a",
        "years": "unknown" if row.age is None else f"{round(row.age, 1):g} years",
        "sex": row.sex,
        "noun": "woman" if row.sex == "female" else "man",
        "Pronoun": "She" if row.sex == "female" else "He",
        "rank": RANKS[row.pclass],
        "family": _family(row),
        "fare": "an unknown fare" if row.fare is None else f"a {band} fare of {row.fare:.2f} pounds",
        "port": PORTS.get(row.embarked or "", "an unknown port"),
        "name": name,
    }


def _inferred(row: Passenger, statistics: Statistics) -> dict[str, str]:
    """Words for what follows from the row and the training rows."""
    party = 1 + statistics.companions(row)
    size = 1 + row.sibsp + row.parch
    each = None if row.fare is None else row.fare / max(party, 1)
    return {
        "role": _role(row),
        "title": TITLES.get(row.title or "", "Noble") if row.title else "untitled",
        "size": SIZES[min(size, len(SIZES)) - 1],
        "relatives": _relatives(row),
        "party": SIZES[min(party, len(SIZES)) - 1],
        "each": "unknown" if each is None else next((word for end, word in EACH if each < end), "highest"),
        "deck": "unknown" if row.cabin is None else row.cabin[0].upper(),
        "surname": ("untold", "unique", "shared")[1 + (statistics.namesakes(row) > 0) if row.surname else 0],
        "fate": statistics.fate(row),
    }


def _role(row: Passenger) -> str:
    young = row.title == "Master" or (row.age is not None and row.age < 13)
    if row.sex == "male":
        return "boy" if young else "man"
    return "girl" if young else "woman"


def _family(row: Passenger) -> str:
    spouses = f"{_count(row.sibsp)} sibling{'s' * (row.sibsp > 1)} or spouse{'s' * (row.sibsp > 1)}"
    parents = f"{_count(row.parch)} parent{'s' * (row.parch > 1)} or child{'ren' * (row.parch > 1)}"
    if row.sibsp and row.parch:
        return f"with {spouses} and {parents}"
    return f"with {spouses if row.sibsp else parents}" if row.sibsp or row.parch else "alone"


def _relatives(row: Passenger) -> str:
    words = [f"siblings {_count(row.sibsp)}"] * (row.sibsp > 0) + [f"parents {_count(row.parch)}"] * (row.parch > 0)
    return " ".join(words) or "nobody"


def _count(number: int) -> str:
    return COUNTS[number] if number < len(COUNTS) else str(number)
