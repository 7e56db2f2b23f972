"""For tests of the Titanic: the real rows, valid CSV files of them, tokenizer trainers, the configured data set."""

import csv
import io
from functools import cache
from pathlib import Path
from typing import Any

from mlxlab.data.loaders.bucketing import FixedBatchSize
from mlxlab.data.subset import ExampleSelection
from mlxlab.data.titanic.dataset import Augment, TitanicDataset
from mlxlab.data.titanic.passenger import COLUMNS, Passenger
from mlxlab.data.titanic.sources import load_passengers
from mlxlab.data.tokenizers.bpe import BPETokenizerTrainer


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


def new_bpe_trainer(**changes: Any) -> BPETokenizerTrainer:
    settings = {
        "vocab_size": "auto",
        "vocab_size_strategy": "auto_limits",
        "min_vocab_size": 512,
        "max_vocab_size": 1500,
        "min_frequency": 2,
        "train_examples": 10_000,
        "path": None,
        "force_retrain": False,
    }
    return BPETokenizerTrainer(**(settings | changes))


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
        "tokenizer": new_bpe_trainer(vocab_size=1024),
        "select": ExampleSelection(mode=None, percent=25, score="mean", source=None),
        "prefetch": 2,
        "overfit_batches": None,
        "baselines": True,
        "seed": 0,
        "cache": cache,
        "parameters": 1_000_000,
        "width": 128,
    }
    return TitanicDataset(**(arguments | changes))
