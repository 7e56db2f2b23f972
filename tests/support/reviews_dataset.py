"""Labelled texts in a file of one line each: a label, a tab and a text."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from mlxlab.data.batch import Batch, Task, check_ids, pad
from mlxlab.data.cache import content_key
from mlxlab.data.dataset import Table
from mlxlab.data.loader import DataLoader, EvalLoader
from mlxlab.data.rng import epoch_permutation
from mlxlab.data.tokenizers.bpe import train_bpe
from mlxlab.data.tokenizers.tokenizer import Tokenizer, load_tokenizer
from mlxlab.errors import DataError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.schema.constraints import Size


class State(TypedDict):
    """The contents of data.json."""

    labels: list[str]
    seq_len: Size


class ReviewEncoder:
    """A `mlxlab.data.dataset.RowEncoder`: inference restores it from the run folder, without the data."""

    columns = ("text",)
    label_column = "label"

    def __init__(self, tokenizer: Tokenizer, labels: Sequence[str], seq_len: int) -> None:
        self.tokenizer = tokenizer
        self.seq_len = seq_len
        self.task = Task("classification", len(labels), tuple(labels))
        self.label_cells = self.task.labels

    def encode_rows(self, table: Table) -> Batch:
        texts = table["text"]
        labels = table.get("label", [None] * len(texts))
        sequences = self.tokenizer.encode_batch(texts, self.seq_len)
        tokens, mask = pad(sequences, self.tokenizer.pad_id, self.seq_len)
        targets = np.array([self._target(label) for label in labels], np.int32)
        weights = np.array([label is not None for label in labels], np.float32)
        batch = Batch(tokens, mask, targets, weights, np.arange(len(texts)))
        return check_ids(batch, self.tokenizer.vocab_size, self.task.num_classes)

    def _target(self, label: str | None) -> int:
        if label is None:
            return 0  # Its weight is 0: there is no loss.
        if label not in self.task.labels:
            raise DataError(f"label {label}: expected one of {', '.join(self.task.labels)}")
        return self.task.labels.index(label)


class Reviews:
    """A `mlxlab.data.dataset.DataModule`: the last fifth of the lines validates."""

    test = ()  # There is no test split.

    def __init__(
        self,
        source: str,
        seq_len: Size,
        batch_size: Size,
        *,
        seed: int,
        pretrained: Path | None = None,
    ) -> None:
        labels, self._texts = read_lines(source)
        num_valid = len(labels) // 5
        num_train = len(labels) - num_valid
        if pretrained is not None:
            self.tokenizer = load_tokenizer(pretrained)
        else:
            self.tokenizer = train_bpe(self._texts[:num_train], vocab_size=512, min_frequency=2)
        classes = sorted(set(labels[:num_train]))
        self.encoder = ReviewEncoder(self.tokenizer, classes, seq_len)
        self.task = self.encoder.task
        self._rows = self.encoder.encode_rows({"text": self._texts, "label": labels})
        self.class_counts = np.bincount(self._rows.targets[:num_train]).tolist()
        self.sources = [f"{source}: {len(labels)} texts of {len(classes)} classes"]

        lines = list(zip(labels, self._texts, strict=True))
        tokenizer = self.tokenizer.fingerprint
        self.fingerprint = content_key(lines=lines, tokenizer=tokenizer, seq_len=seq_len, seed=seed)
        self.held_out = content_key(lines=lines[num_train:])

        # The order is a function of seed and epoch, so that a run resumes at any batch.
        order = epoch_permutation(num_train, seed)
        self.train = DataLoader(num_train, batch_size, order, self._train_batch, self.fingerprint)
        self.valid = EvalLoader(
            num_valid, batch_size, lambda rows: select_rows(self._rows, num_train + rows)
        )

    def _train_batch(self, epoch: int, rows: np.ndarray, length: int | None) -> Batch:
        return select_rows(self._rows, rows)

    def texts(self, ids: Sequence[int]) -> list[str]:
        return [self._texts[row] for row in ids]

    def save(self, folder: Path) -> None:
        self.tokenizer.save(folder)
        write_json(
            folder / "data.json", {"labels": self.task.labels, "seq_len": self.encoder.seq_len}
        )

    @staticmethod
    def restore_encoder(folder: Path) -> ReviewEncoder:
        state = read_json(folder / "data.json", State)
        return ReviewEncoder(load_tokenizer(folder), state["labels"], state["seq_len"])


def select_rows(batch: Batch, rows: np.ndarray) -> Batch:
    return Batch(
        batch.tokens[rows],
        batch.segment_ids[rows],
        batch.targets[rows],
        batch.loss_weights[rows],
        batch.example_ids[rows],
    )


def read_lines(source: str) -> tuple[list[str], list[str]]:
    """The labels and the texts of a file."""
    lines = [line.partition("\t") for line in Path(source).read_text().splitlines()]
    return [label for label, _, _ in lines], [text for _, _, text in lines]
