"""Labelled rows as training and evaluation batches: what all labelled data sets share."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from mlxlab.data.batch import Batch
from mlxlab.data.cache import content_key
from mlxlab.data.dataset import BaselineInputs, KnownRows, Table
from mlxlab.data.labelled.inputs import Inputs
from mlxlab.data.labelled.labels import Labels
from mlxlab.data.labelled.options import BatchOptions
from mlxlab.data.labelled.row_split import SPLITS, PreparedRows, digest
from mlxlab.data.labelled.rows import BLOCK, hash_rows
from mlxlab.data.labelled.types import spell_table
from mlxlab.data.loaders.bucketing import make_loader
from mlxlab.data.loaders.loader import EvalLoader
from mlxlab.data.loaders.wrappers import wrap_batches
from mlxlab.wording import percent

MAX_CLASSES_SHOWN = 10


class LabelledExamples(ABC):
    """A `DataModule` of labelled rows, but for its baselines and texts.

    Args:
        prepared: the rows, and what was fitted on those for training.
        inputs: what the model reads of them.
        copies: how often each training row is shown in an epoch.
    """

    format_name: ClassVar[str]  # the format that `save` writes

    def __init__(
        self,
        prepared: PreparedRows,
        inputs: Inputs,
        options: BatchOptions,
        seed: int,
        copies: int = 1,
    ) -> None:
        rows = prepared.rows
        split = prepared.split
        labels = prepared.labels
        self.rows = rows
        self.split = split
        self.targets = prepared.targets
        self._numbers = prepared.numbers
        self.inputs = inputs
        self.tokenizer = inputs.tokenizer
        self.encoder = inputs.encoder
        self.columns = list(self.encoder.columns)
        self.row_lengths = inputs.row_lengths
        self.task = self.encoder.task

        self.held_out = content_key(sources=rows.fingerprint, valid=digest(split.valid))
        train_ids = prepared.ids[split.train]
        chosen = options["select"].chosen(seed, train_ids)
        self._shown = np.arange(len(train_ids))
        if chosen is not None:
            self._shown = np.flatnonzero(np.isin(train_ids, chosen))
        self.fingerprint = content_key(
            tokens=inputs.key,
            labels=labels.state_dict(),
            seed=seed,
            copies=copies,
            shown=digest(self._shown),
        )
        self._make_loaders(options, seed, copies)
        self.fits_baselines = options["baselines"]
        lines = [self._describe_labels(labels), *inputs.lines]
        self.sources = split.lines + [f"{rows.name}: {line}" for line in lines]

    @property
    def training_targets(self) -> np.ndarray:
        """Targets of all training rows, as in a `Batch`."""
        return self.targets.of(np.arange(len(self.split.train)))[0]

    @property
    def valid_targets(self) -> np.ndarray:
        """Targets of all validation rows, as in a `Batch`."""
        positions = np.arange(len(self.split.valid)) + len(self.split.train)
        return self.targets.of(positions)[0]

    @property
    def num_examples(self) -> dict[str, int]:
        """Rows of each split; training rows are those that are selected."""
        sizes = (len(self._shown), *self.split_sizes[1:])
        return {name: size for name, size in zip(SPLITS, sizes, strict=True) if size}

    @property
    def class_counts(self) -> list[int]:
        """Selected training rows of each class, or with each label; empty for numbers."""
        values, _ = self.targets.of(self._shown)
        if self.task.kind == "classification":
            return np.bincount(values, minlength=self.task.num_classes).tolist()
        if self.task.kind == "multi_label":
            return values.sum(axis=0).astype(int).tolist()
        return []

    def count_known_rows(self, table: Table) -> KnownRows:
        """Implements `LabelledRows`."""
        inputs = self.columns
        is_trained = self._are_among(self.split.train, table, [*inputs, self.encoder.label_column])
        is_validated = self._are_among(self.split.valid, table, inputs) & ~is_trained
        return KnownRows(int(is_trained.sum()), int(is_validated.sum()))

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and data.json for inference, and how the vocabulary size was chosen."""
        self.encoder.save(folder, self.format_name, self.rows.name, self.fingerprint)
        if self.inputs.curve is not None:
            self.inputs.curve.save(folder)

    @property
    def split_sizes(self) -> tuple[int, int, int]:
        return len(self.split.train), len(self.split.valid), len(self.split.test)

    @property
    @abstractmethod
    def baseline_inputs(self) -> BaselineInputs | None: ...

    def cells(self, positions: np.ndarray) -> Table:
        """The columns that the model reads, of the rows at these positions; training rows are the first ones."""
        return self.rows.table(self.columns, self._numbers[positions])

    @property
    def training_rows(self) -> EvalLoader:
        """Every training row once."""
        return EvalLoader(len(self.split.train), BLOCK, partial(self._eval_batch, 0))

    def _make_loaders(self, options: BatchOptions, seed: int, copies: int) -> None:
        inputs = self.inputs
        by_row = inputs.lengths.reshape(-1, inputs.num_variants)
        examples = np.arange(len(self._shown) * copies)

        def lengths(epoch: int) -> np.ndarray:
            return inputs.lengths[inputs.sequences(epoch, *self._draw(examples))]

        def batch(epoch: int, examples: np.ndarray, length: int | None) -> Batch:
            return inputs.batch(epoch, *self._draw(examples), length)

        loader = make_loader(
            lengths,
            options["batching"],
            options["batch_size"] or inputs.batch_size,
            seed,
            batch,
            self.fingerprint,
            by_row[self._shown].ravel(),
        )
        self.train = wrap_batches(loader, options["prefetch"], options["overfit_batches"])
        size = options["eval_batch_size"]
        num_train, num_valid, num_test = self.split_sizes
        valid = partial(self._eval_batch, num_train)
        self.valid = EvalLoader(num_valid, size, valid)
        test = partial(self._eval_batch, num_train + num_valid)
        self.test = EvalLoader(num_test, size, test)

    def _draw(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The position of each example's row, and its copy: 1, 2, ...

        Example e is row `shown[e % N]` of the N rows that are shown, in its copy number `e // N`.
        """
        copies, shown = np.divmod(examples, len(self._shown))
        return self._shown[shown], copies + 1

    def _eval_batch(self, first: int, rows: np.ndarray) -> Batch:
        """A batch of rows that are counted from a position; copy 0 of epoch 0 is that of an evaluation."""
        return self.inputs.batch(0, first + rows, 0)

    def _are_among(self, numbers: np.ndarray, table: Table, names: Sequence[str]) -> np.ndarray:
        """(N,) True for the rows of the table whose values in these columns are those of one of the numbered rows."""
        types = {**self.encoder.types, self.encoder.label_column: self.encoder.labels.type}
        chosen = {name: types[name] for name in names}
        blocks = self.rows.blocks(names, numbers)
        own = [hash_rows(spell_table(block, chosen)) for block in blocks]
        return np.isin(hash_rows(spell_table(table, chosen)), np.concatenate(own))

    def _describe_labels(self, labels: Labels) -> str:
        column = self.encoder.label_column
        if self.task.kind == "regression":
            return f"regression of {column} (mean {labels.mean:.4g})"
        counts = self.class_counts
        shares: list[str] = []
        for number in np.argsort(counts)[: -MAX_CLASSES_SHOWN - 1 : -1]:
            share = counts[number] / max(len(self._shown), 1)
            shares.append(f"{labels.names[number]} {percent(share)}")
        frequent = "training rows" if len(shares) == len(counts) else "most frequent"
        return f"{column}: {len(counts)} classes ({frequent}: {', '.join(shares)})"
