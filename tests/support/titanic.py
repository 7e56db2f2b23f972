"""Parts for the tests of the Titanic: the real rows, sound CSV files of them, the data set of the configuration."""

import csv
import io
from functools import cache
from pathlib import Path
from typing import Any

from mlxlab.data.loaders.bucketing import FixedBatchSize
from mlxlab.data.subset import ExampleSelection
from mlxlab.data.titanic.csv_schema import COLUMNS
from mlxlab.data.titanic.dataset import Augment, TitanicDataset
from mlxlab.data.titanic.passenger import Passenger
from mlxlab.data.titanic.sources import load_passengers
from mlxlab.data.tokenizers.tokenizer import ByteLevelBPE


@cache
def real_rows() -> tuple[Passenger, ...]:
    source = load_passengers(None)
    return (*source.train, *source.test)


def csv_text(rows: Any) -> str:
    """Rows as Kaggle writes them."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([["" if value is None else value for value in row] for row in rows])
    return out.getvalue()


def make_titanic(cache: Path, **changes: Any) -> TitanicDataset:
    """The data set of conf/data/titanic.yaml."""
    arguments = {
        "source": None,
        "valid_source": None,
        "templates": ["basic", "narrative", "descriptive", "story"],
        "augment": Augment(copies=3),
        "seq_len": 128,
        "batch_size": 32,
        "batching": FixedBatchSize(num_buckets=7),
        "eval_batch_size": 64,
        "valid_fraction": 0.2,
        "folds": None,
        "fold": 0,
        "tokenizer": ByteLevelBPE(vocab_size=1024, min_frequency=2),
        "select": ExampleSelection(mode=None, percent=25, score="mean", source=None),
        "prefetch": 2,
        "overfit_batches": None,
        "seed": 0,
        "cache": cache,
    }
    return TitanicDataset(**(arguments | changes))
