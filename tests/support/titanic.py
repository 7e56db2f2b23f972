"""For tests of the Titanic: the real rows, valid CSV files of them, tokenizer trainers, the configured data set."""

import csv
import io
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from mlxlab.data.dataset import Table
from mlxlab.data.labelled.sentences import Row, SentenceRenderer
from mlxlab.data.loader import FixedBatchSize
from mlxlab.data.titanic.dataset import FOLDER, Augment, TitanicDataset, load_rules
from mlxlab.data.tokenizers.bpe import BPETokenizerTrainer
from mlxlab.extensions.example_losses.selection import LossSelection

COLUMNS = ("PassengerId", "Survived", "Pclass", "Name", "Sex", "Age")
COLUMNS += ("SibSp", "Parch", "Ticket", "Fare", "Cabin", "Embarked")


class Passenger(NamedTuple):
    """A row of titanic.csv, None where a value is missing."""

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

    def typed(self) -> Row:
        """The row as templates see it."""
        return dict(zip(COLUMNS, self, strict=True))


@cache
def real_rows(file: str = "titanic.csv") -> tuple[Passenger, ...]:
    with (FOLDER / file).open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    typed = load_rules().read({name: [row[name] or None for row in rows] for name in COLUMNS})
    return tuple(Passenger(*(row[name] for name in COLUMNS)) for row in typed)


def table_of(rows: Iterable[Passenger]) -> Table:
    """The cells of rows."""
    cells = [[None if value is None else str(value) for value in row] for row in rows]
    return {
        name: list(column) for name, column in zip(COLUMNS, zip(*cells, strict=True), strict=True)
    }


def csv_text(rows: Any) -> str:
    """Rows as Kaggle writes them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([["" if value is None else value for value in row] for row in rows])
    return out.getvalue()


def new_renderer(
    names: Sequence[str], trained: Iterable[Passenger] = (), seed: int = 0
) -> SentenceRenderer:
    """That of these templates, fitted on these rows."""
    return SentenceRenderer(load_rules(), names, seed).fit([row.typed() for row in trained])


def new_bpe_trainer(**changes: Any) -> BPETokenizerTrainer:
    settings = {"vocab_size": "auto", "min_vocab_size": 512, "max_vocab_size": 1500}
    settings |= {"min_frequency": 2, "train_examples": 10_000, "path": None}
    return BPETokenizerTrainer(**(settings | changes))


def make_titanic(cache: Path, **changes: Any) -> TitanicDataset:
    """The data set of conf/data/titanic.yaml."""
    arguments = dict.fromkeys(("source", "valid_source", "folds", "overfit_batches"))
    arguments |= {"templates": ["basic", "narrative", "descriptive", "story"], "cache": cache}
    arguments |= {"seq_len": 128, "batch_size": 32, "eval_batch_size": 64, "valid_fraction": 0.2}
    arguments |= {"fold": 0, "prefetch": 2, "baselines": True, "seed": 0, "width": 128}
    arguments |= {"parameters": 1_000_000, "augment": Augment(copies=3)}
    arguments["batching"] = FixedBatchSize(num_buckets=7)
    arguments["tokenizer"] = new_bpe_trainer(vocab_size=1024)
    arguments["select"] = LossSelection(mode=None, percent=25, score="mean", source=None)
    return TitanicDataset(**(arguments | changes))
