"""The data of the cases: files of fixed content, small and without equal rows."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path

SUBJECTS = (
    "the cook",
    "a sailor",
    "the old teacher",
    "my neighbour",
    "a young doctor",
    "the miller",
)
VERBS = ("finds", "carries", "watches", "paints", "forgets", "borrows", "repairs")
OBJECTS = ("a red boat", "the clock", "two heavy stones", "an apple pie", "the garden gate")
PLACES = ("near the river", "in the kitchen", "behind the school", "at the harbour")
ENDINGS = ("before sunrise", "without a word", "for the third time")
BRANDS = ("Ardent", "Boreal", "Cirrus", "Dynamo")
FUELS = ("petrol", "diesel", "electric", "")


def sentence(number: int) -> str:
    """Each number below 2,520 gives another one."""
    words = []
    for choices in (SUBJECTS, VERBS, OBJECTS, PLACES, ENDINGS):
        words.append(choices[number % len(choices)])
        number = number // len(choices) + number
    return f"{' '.join(words)}."


def paragraph(number: int, sentences: int) -> str:
    return " ".join(sentence(number * 17 + each * 5) for each in range(sentences))


def texts() -> Iterable[dict[str, object]]:
    for number in range(240):
        label = ("land", "water", "sky")[number * 7 % 11 % 3]
        yield {"text": f"{label[0]} {number}: {sentence(number)}", "label": label}


def cars() -> Iterable[dict[str, object]]:
    for number in range(240):
        year = 1995 + number * 13 % 29
        thousands = number * 37 % 211
        price = 500 + 400 * (year - 1990) - 31 * thousands + 90 * (number % 4)
        yield {
            "brand": BRANDS[number % 4],
            "year": year,
            "km": thousands * 1000 + number,
            "fuel": FUELS[number // 3 % 4],
            "price": price + 0.5 * (number % 7),
            "sold": ("no", "yes")[number * 5 % 7 % 2],
        }


def stories() -> Iterable[dict[str, object]]:
    for number in range(200):
        yield {"text": paragraph(number, 4 + number % 5)}


def tales() -> Iterable[dict[str, object]]:
    for number in range(60):
        yield {"text": f"Tale {number}: {paragraph(number + 1000, 3 + number % 4)}"}


def conversations() -> Iterable[dict[str, object]]:
    for number in range(120):
        messages = []
        for turn in range(1 + number % 2):
            question = f"What happens on day {number} at {turn + 1} o'clock?"
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": sentence(number * 3 + turn)})
        yield {"messages": messages}


def write_inputs(folder: Path) -> None:
    """Writes all files."""
    folder.mkdir(parents=True)
    write_csv(folder / "texts.csv", texts())
    write_csv(folder / "cars.csv", cars())
    write_json_lines(folder / "stories.jsonl", stories())
    write_json_lines(folder / "tales.jsonl", tales())
    write_json_lines(folder / "conversations.jsonl", conversations())


def write_csv(path: Path, rows: Iterable[dict[str, object]]) -> None:
    rows = list(rows)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_json_lines(path: Path, rows: Iterable[dict[str, object]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
