"""For tests of labelled data: CSV files, and the configured data sets."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlxlab.data.labelled.dataset import LabelledDataset
from mlxlab.data.loader import FixedBatchSize
from mlxlab.data.sources.open import Reading
from mlxlab.extensions.example_losses.selection import LossSelection
from support.titanic import new_bpe_trainer


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def make_texts(source: str, cache: Path, **changes: Any) -> LabelledDataset:
    """The data set of conf/data/text_classification.yaml."""
    arguments = {
        "source": source,
        "valid_source": None,
        "test_source": None,
        "text_column": "text",
        "target": "label",
        "columns": None,
        "exclude": [],
        "types": {},
        "bins": 16,
        "positive_class": None,
        "task": "auto",
        "label_delimiter": None,
        "valid_fraction": 0.2,
        "folds": None,
        "fold": 0,
        "group_column": None,
        "time_column": None,
        "on_overlap": "warn",
        "on_error": "strict",
        "max_left_out": 0.01,
        "reading": Reading(),
        "seq_len": 128,
        "batch_size": 8,
        "batching": FixedBatchSize(num_buckets=7),
        "eval_batch_size": 16,
        "tokenizer": new_bpe_trainer(vocab_size=300),
        "overfit_batches": None,
        "select": LossSelection(mode=None, percent=25, score="mean", source=None),
        "prefetch": 0,
        "baselines": True,
        "seed": 0,
        "cache": cache,
        "parameters": 1000,
        "width": 16,
    }
    return LabelledDataset(**(arguments | changes))
