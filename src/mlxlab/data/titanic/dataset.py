"""The Titanic: one sentence a passenger, and the question whether he or she survived."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from mlxlab.constraints import Count, FilePath, Ge, Gt, Le, Lt, MinLen, Seed, Size
from mlxlab.data.array_cache import cached, content_key
from mlxlab.data.batch import Batch, BatchIterator
from mlxlab.data.loaders.bucketing import Batching, make_loader
from mlxlab.data.loaders.collate import split_ragged
from mlxlab.data.loaders.loader import EvalLoader
from mlxlab.data.loaders.prefetch import prefetch as prefetched
from mlxlab.data.loaders.repeat import repeat_batches
from mlxlab.data.subset import ExampleSelection
from mlxlab.data.titanic import baselines
from mlxlab.data.titanic.csv_schema import read_passengers as read_passengers
from mlxlab.data.titanic.encoder import PassengerEncoder, fit_passenger_encoder
from mlxlab.data.titanic.encoder import restore as restore
from mlxlab.data.titanic.passenger import Passenger
from mlxlab.data.titanic.sources import load_passengers
from mlxlab.data.titanic.split import split_rows
from mlxlab.data.tokenizers.tokenizer import ByteLevelBPE


class Augment:
    """Training rows are shown several times an epoch, each time by a template drawn anew.

    Args:
        copies: times that each training row is shown in an epoch.
    """

    def __init__(self, copies: Annotated[int, Ge(1), Le(1000)]) -> None:
        self.copies = copies


class TitanicDataset:
    """Sentences of passengers, labelled `died` or `survived`.

    Everything fitted (statistics, tokenizer) is fitted on the training rows alone. Of the real rows, 892..1309 are
    `test`: there to report on; nothing here trains on them or chooses by them.

    Args:
        source: a CSV file with Kaggle's columns; null takes the real rows, `synthetic` generates some.
        valid_source: a CSV file to validate on; null holds out some of the rows.
        templates: sentences to draw from; `brief` and `full` also say who shares a ticket, `group` how the women and
            children of the same party fared (by training labels).
        augment: how often a training row is shown.
        max_length: tokens of a sentence at most; longer ones are cut.
        batch_size: sentences of a training batch.
        batching: which sentences make a batch, and how many.
        eval_batch_size: sentences of an evaluation batch; changes no result.
        valid_fraction: part of each class that validates, unless `folds` or `valid_source` say otherwise.
        folds: number of folds of a cross-validation; null for none.
        fold: the fold that validates, from 0.
        tokenizer: how one is trained; a pretrained model brings its own.
        overfit_batches: train on this many batches again and again; null trains on all.
        select: which of the training rows are shown, by what they cost in an earlier run; statistics and tokenizer are
            those of all.
        prefetch: batches made ready in the background; 0 makes each when it is asked for.
        seed: of split, templates and order.
        cache: folder for tokenized sentences.
        pretrained: folder of a pretrained model whose tokenizer.json is to be used.

    Raises:
        InputNotFoundError, DataError: a source is not there, or is malformed.
        ConfigError: `fold` and `folds` do not go together.
    """

    def __init__(
        self,
        source: FilePath | None,
        valid_source: FilePath | None,
        templates: Annotated[
            list[Literal["basic", "narrative", "descriptive", "story", "brief", "full", "group"]], MinLen(1)
        ],
        augment: Augment,
        max_length: Annotated[int, Ge(8), Le(8192)],
        batch_size: Size,
        batching: Batching,
        eval_batch_size: Size,
        valid_fraction: Annotated[float, Gt(0), Lt(1)],
        folds: Annotated[int, Ge(2), Le(400)] | None,
        fold: Count,
        tokenizer: ByteLevelBPE,
        overfit_batches: Size | None,
        select: ExampleSelection,
        prefetch: Annotated[int, Ge(0), Le(1024)],
        *,
        seed: Seed,
        cache: Path,
        pretrained: Path | None = None,
    ) -> None:
        found = load_passengers(source)
        split = split_rows(found.train, valid_source, valid_fraction, folds, fold, seed)
        self.name, self.test_rows = found.name, found.test
        self.train_rows, self.valid_rows = split.train, split.valid
        self.encoder = fit_passenger_encoder(split.train, templates, tokenizer, max_length, seed, pretrained)
        self.task, self.tokenizer = self.encoder.task, self.encoder.tokenizer
        parts = (found.sha256, split.digest, split.train, split.valid, augment.copies)
        key = self.encoder.key(*parts)
        ids = self._ids = np.array([row.id for row in split.train])
        self.shown = select.keeps(seed, ids)  # places in train_rows
        self.held_out = content_key(source=found.sha256, valid=[row.id for row in split.valid])
        chosen = len(self.shown) < len(ids)
        self.fingerprint = self.encoder.key(*parts, ids[self.shown].tolist()) if chosen else key

        arrays, said = cached(cache, self.name, key, lambda: self.encoder.arrays(split.train, split.valid))
        self._train_tokens = split_ragged(
            arrays["train"], arrays["train_lengths"]
        )  # row after row, a template after the other
        self._valid_tokens = split_ragged(arrays["valid"], arrays["valid_lengths"])
        longest = max(map(len, self._train_tokens))
        size = f"{len(arrays['train'])} tokens of {self.tokenizer.vocab_size}, {longest} in the longest sentence"
        lines = [split.line, *([f"{len(self.shown)} of them selected"] if chosen else []), f"token cache {said}", size]
        self.sources = [*found.description, *(f"{self.name}: {line}" for line in lines)]

        self.copies, self._lengths = augment.copies, np.array([len(tokens) for tokens in self._train_tokens])
        batches = make_loader(
            self._train_lengths, batching, batch_size, seed, self._train_batch, self.fingerprint, self._lengths
        )
        self.train: BatchIterator = repeat_batches(prefetched(batches, prefetch), overfit_batches)
        self.eval_batch_size = eval_batch_size
        self.valid = EvalLoader(len(split.valid), eval_batch_size, self._valid_batch)

    @property
    def test(self) -> EvalLoader:
        """The 418 rows to report on (none for other sources); encoded when asked for, never cached."""
        return self.evaluation(self.test_rows)

    def evaluation(self, rows: Sequence[Passenger]) -> EvalLoader:
        """BatchIterator of any rows, in their order."""
        collate = lambda _, places: self.encode_rows([rows[i] for i in places])  # noqa: E731
        return EvalLoader(len(rows), self.eval_batch_size, collate)

    @property
    def class_counts(self) -> list[int]:
        """Shown training rows that died, that survived."""
        return np.bincount([self.train_rows[i].survived or 0 for i in self.shown], minlength=2).tolist()

    def texts(self, rows: Sequence[Passenger]) -> list[str]:
        """The sentence by which each row is judged."""
        return self.encoder.texts(rows)

    def encode_rows(self, rows: Sequence[Passenger]) -> Batch:
        """One batch of rows; a row without a label has weight 0."""
        return self.encoder.encode_rows(rows)

    def baselines(self) -> dict[str, float]:
        """Accuracies, on the validation rows, of what needs no neural network."""
        return baselines.accuracies(self.encoder, self.train_rows, self.valid_rows)

    def save(self, folder: Path) -> None:
        """Writes what inference needs: tokenizer.json and data.json; `restore` reads them."""
        self.encoder.save(folder, source=self.name, fingerprint=self.fingerprint)

    @staticmethod
    def restore_encoder(folder: Path) -> PassengerEncoder:
        return restore(folder)

    def _train_batch(self, epoch: int, places: np.ndarray, length: int | None) -> Batch:
        rows, tokens = self._drawn(epoch, places)
        picked = [self.train_rows[row] for row in rows]
        return self.encoder.collate(picked, [self._train_tokens[place] for place in tokens], length)

    def _train_lengths(self, epoch: int) -> np.ndarray:
        return self._lengths[self._drawn(epoch, np.arange(len(self.shown) * self.copies))[1]]

    def _drawn(self, epoch: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows shown at some places of an epoch, and where the tokens of their drawn sentences are."""
        copies, places = np.divmod(places, len(self.shown))
        rows = self.shown[places]
        templates = self.encoder.choose(self._ids[rows], epoch, copies + 1)
        return rows, rows * len(self.encoder.templates) + templates

    def _valid_batch(self, epoch: int, places: np.ndarray) -> Batch:
        return self.encoder.collate([self.valid_rows[i] for i in places], [self._valid_tokens[i] for i in places])
