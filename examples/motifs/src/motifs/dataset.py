"""DNA sequences with labels as an mlxlab data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import tokenizers
from mlxlab.data.batch import Batch, Task, check_ids, pad
from mlxlab.data.cache import content_key
from mlxlab.data.dataset import Table
from mlxlab.data.loader import DataLoader, EvalLoader
from mlxlab.data.rng import epoch_permutation
from mlxlab.data.tokenizers.tokenizer import BOS, EOS, MASK, PAD, Tokenizer, load_tokenizer
from mlxlab.errors import DataError
from mlxlab.files.atomic import write_json
from mlxlab.files.untrusted import read_json
from mlxlab.models.baselines.predict import Baseline
from mlxlab.schema.constraints import Size
from tokenizers import decoders, models

from motifs.fasta import BASES, check_bases, read_fasta


class State(TypedDict):
    """The contents of motifs.json."""

    labels: list[str]
    seq_len: Size


class MotifsEncoder:
    """Turns rows with a column `sequence` into tokens: what `predict` and `evaluate` restore from a run folder."""

    columns, label_column = ("sequence",), "label"

    def __init__(self, tokenizer: Tokenizer, labels: Sequence[str], seq_len: int) -> None:
        self.tokenizer, self.seq_len = tokenizer, seq_len
        self.task = Task("classification", len(labels), tuple(labels))
        self.label_cells = self.task.labels

    def encode(self, sequences: Sequence[str], targets: np.ndarray, weights: np.ndarray, ids: np.ndarray) -> Batch:
        rows = self.tokenizer.encode_batch(sequences, self.seq_len)
        tokens, mask = pad(rows, self.tokenizer.pad_id, self.seq_len)
        batch = Batch(tokens, mask, targets.astype(np.int32), weights.astype(np.float32), ids.astype(np.int64))
        return check_ids(batch, self.tokenizer.vocab_size, self.task.num_classes)

    def encode_rows(self, table: Table) -> Batch:
        sequences = [check_bases(cell or "", f"row {row}") for row, cell in enumerate(table["sequence"], 1)]
        if "" in sequences:
            raise DataError(f"row {sequences.index('') + 1}: column 'sequence': expected bases, got nothing")
        cells = table.get("label", [None] * len(sequences))
        targets = np.array(
            [0 if cell is None else self.target(cell, f"row {row}") for row, cell in enumerate(cells, 1)]
        )
        has_label = np.array([cell is not None for cell in cells])
        return self.encode(sequences, targets, has_label, np.arange(len(sequences)))

    def target(self, label: str, place: str) -> int:
        """The number of a label."""
        if label not in self.task.labels:
            raise DataError(f"{place}: expected one of {', '.join(self.task.labels)}, got {label}")
        return self.task.labels.index(label)


class Motifs:
    """Sequences of a FASTA file with headers `>name label`; every fifth is for validation.

    Args:
        source: the file.
        seq_len: bases of a row; longer sequences are truncated.
        batch_size: sequences of a batch.
    """

    test = ()

    def __init__(
        self, source: str, seq_len: Size, batch_size: Size, *, seed: int, pretrained: Path | None = None
    ) -> None:
        records = read_fasta(source)
        if len(records) < 5:
            raise DataError(f"{source}: expected at least 5 sequences, got {len(records)}")
        self._sequences = [record.sequence for record in records]
        is_valid = np.arange(len(records)) % 5 == 4
        train, valid = np.flatnonzero(~is_valid), np.flatnonzero(is_valid)
        self.tokenizer = load_tokenizer(pretrained) if pretrained else base_tokenizer()
        self.encoder = MotifsEncoder(self.tokenizer, sorted({records[row].label for row in train}), seq_len)
        self.task = self.encoder.task
        self._targets = np.array([self.encoder.target(record.label, source) for record in records])
        self.class_counts = np.bincount(self._targets[train], minlength=self.task.num_classes).tolist()
        self.fingerprint = content_key(seed=seed, records=records, seq_len=seq_len)
        self.held_out = content_key(records=[records[row] for row in valid])
        self.sources = [f"{source}: {len(train)} sequences to train on, {len(valid)} to validate"]
        order = epoch_permutation(len(train), seed)  # a function of seed and epoch: a run resumes at any batch
        self.train = DataLoader(
            len(train), batch_size, order, lambda epoch, rows, length: self._batch(train[rows]), self.fingerprint
        )
        self.valid = EvalLoader(len(valid), batch_size, lambda rows: self._batch(valid[rows]))
        self._valid = valid

    def _batch(self, rows: np.ndarray) -> Batch:
        sequences = [self._sequences[row] for row in rows]
        return self.encoder.encode(sequences, self._targets[rows], np.ones(len(rows)), rows)

    def baselines(self) -> list[Baseline]:
        """The class frequencies of the training sequences, for every validation sequence."""
        frequencies = np.array(self.class_counts) / sum(self.class_counts)
        return [Baseline("majority", np.tile(frequencies, (len(self._valid), 1)), np.zeros((0, len(frequencies))))]

    def texts(self, ids: Sequence[int]) -> list[str]:
        return [self._sequences[row] for row in ids]

    def save(self, folder: Path) -> None:
        self.tokenizer.save(folder)
        write_json(folder / "motifs.json", {"labels": self.task.labels, "seq_len": self.encoder.seq_len})

    @staticmethod
    def restore_encoder(folder: Path) -> MotifsEncoder:
        state = read_json(folder / "motifs.json", State)
        return MotifsEncoder(load_tokenizer(folder), state["labels"], state["seq_len"])


def base_tokenizer() -> Tokenizer:
    """One token for each base."""
    special = [PAD, BOS, EOS, MASK]
    inner = tokenizers.Tokenizer(models.BPE({piece: number for number, piece in enumerate([*special, *BASES])}, []))
    inner.add_special_tokens(special)
    inner.decoder = decoders.Fuse()
    return Tokenizer(inner)
