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
    unset = ("valid_source", "test_source", "columns", "positive_class", "label_delimiter")
    unset += ("folds", "group_column", "time_column", "overfit_batches")
    arguments = dict.fromkeys(unset) | {"source": source, "cache": cache, "reading": Reading()}
    arguments |= {"text_column": "text", "target": "label", "task": "auto", "valid_fraction": 0.2}
    arguments |= {"exclude": [], "types": {}, "bins": 16, "on_overlap": "warn"}
    arguments |= {"on_error": "strict", "max_left_out": 0.01, "seq_len": 128, "batch_size": 8}
    arguments |= {"fold": 0, "eval_batch_size": 16, "prefetch": 0, "baselines": True, "seed": 0}
    arguments |= {"parameters": 1000, "width": 16}
    arguments["batching"] = FixedBatchSize(num_buckets=7)
    arguments["tokenizer"] = new_bpe_trainer(vocab_size=300)
    arguments["select"] = LossSelection(mode=None, percent=25, score="mean", source=None)
    return LabelledDataset(**(arguments | changes))
