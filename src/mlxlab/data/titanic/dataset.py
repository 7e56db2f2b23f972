"""The Titanic data set: one sentence per passenger, classified into died and survived."""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from mlxlab.constraints import Count, FilePath, Ge, Gt, Le, Lt, MinLen, Seed, Size
from mlxlab.data.array_cache import cached, content_key
from mlxlab.data.batch import BatchIterator
from mlxlab.data.loaders.bucketing import Batching, make_loader
from mlxlab.data.loaders.collate import split_ragged
from mlxlab.data.loaders.loader import EvalLoader
from mlxlab.data.loaders.prefetch import prefetch as start_prefetch
from mlxlab.data.loaders.repeat import repeat_batches
from mlxlab.data.subset import ExampleSelection
from mlxlab.data.titanic import baselines
from mlxlab.data.titanic.encoder import PassengerEncoder, fit_passenger_encoder, restore
from mlxlab.data.titanic.sources import load_passengers
from mlxlab.data.titanic.split import split_rows
from mlxlab.data.titanic.training_sentences import TrainingSentences
from mlxlab.data.tokenizers.tokenizer import ByteLevelBPE


class Augment:
    """Repeats training rows within an epoch, each time with a newly drawn template.

    Args:
        copies: repetitions of each training row per epoch.
    """

    def __init__(self, copies: Annotated[int, Ge(1), Le(1000)]) -> None:
        self.copies = copies


class TitanicDataset:
    """Sentences about passengers, labelled `died` or `survived`: a `DataModule`.

    Group statistics and tokenizer are fitted on the training rows alone. Rows 892..1309 of the real data are used by
    `evaluate data.source=test` only, never for training or for any choice.

    Args:
        source: a CSV file with Kaggle's columns; null takes the real rows, `synthetic` generates some.
        valid_source: a CSV file to validate on; null holds out some of the rows.
        templates: sentences to draw from; `brief` and `full` also say who shares a ticket, `group` how the women and
            children of the same party fared (by training labels).
        augment: how often a training row is shown.
        seq_len: maximum tokens per sentence; longer ones are truncated.
        batch_size: sentences per training batch.
        batching: how sentences are grouped into batches.
        eval_batch_size: sentences per evaluation batch; changes no result.
        valid_fraction: fraction of each class for validation, unless `folds` or `valid_source` is set.
        folds: number of cross-validation folds; null for none.
        fold: the fold to validate on, from 0.
        tokenizer: how the tokenizer is trained; a pretrained model brings its own.
        overfit_batches: train on this many batches again and again; null trains on all.
        select: which training rows are shown, by their loss in an earlier run; statistics and tokenizer are fitted on
            all of them.
        prefetch: batches prepared in the background; 0 prepares each on demand.
        seed: of split, templates and order.
        cache: folder for tokenized sentences.
        pretrained: folder of a pretrained model whose tokenizer.json is used.

    Raises:
        InputNotFoundError, DataError: a source is missing or malformed.
        ConfigError: `fold` is not a fold of `folds`.
    """

    def __init__(
        self,
        source: FilePath | None,
        valid_source: FilePath | None,
        templates: Annotated[
            list[Literal["basic", "narrative", "descriptive", "story", "brief", "full", "group"]], MinLen(1)
        ],
        augment: Augment,
        seq_len: Annotated[int, Ge(8), Le(8192)],
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
        source_rows = load_passengers(source)
        split = split_rows(source_rows.train, valid_source, valid_fraction, folds, fold, seed)
        self.name, self.train_rows, self.valid_rows = source_rows.name, split.train, split.valid
        self.encoder = fit_passenger_encoder(split.train, templates, tokenizer, seq_len, seed, pretrained)
        self.task, self.tokenizer = self.encoder.task, self.encoder.tokenizer
        self.held_out = content_key(source=source_rows.sha256, valid=[row.id for row in split.valid])

        content = (source_rows.sha256, split.digest, split.train, split.valid, augment.copies)
        key = self.encoder.key(*content)
        arrays, cache_line = cached(
            cache, self.name, key, lambda: self.encoder.arrays(split.train, split.valid), self._check_arrays
        )
        tokens = split_ragged(arrays["train"], arrays["train_lengths"])
        ids = np.array([row.id for row in split.train])
        self.shown = select.keeps(seed, ids)  # indices into train_rows
        is_subset = len(self.shown) < len(ids)
        self.fingerprint = self.encoder.key(*content, ids[self.shown].tolist()) if is_subset else key
        longest = max(map(len, tokens))
        self.sources = [
            *source_rows.description,
            f"{self.name}: {split.description}",
            *([f"{self.name}: {len(self.shown)} of them selected"] if is_subset else []),
            f"{self.name}: token cache {cache_line}",
            f"{self.name}: {len(arrays['train'])} tokens of {self.tokenizer.vocab_size}, at most {longest} a row",
        ]
        sentences = TrainingSentences(self.encoder, split.train, tokens, self.shown, augment.copies)
        batches = make_loader(
            sentences.lengths, batching, batch_size, seed, sentences.batch, self.fingerprint, sentences.all_lengths
        )
        self.train: BatchIterator = repeat_batches(start_prefetch(batches, prefetch), overfit_batches)
        valid_tokens = split_ragged(arrays["valid"], arrays["valid_lengths"])
        self.valid = EvalLoader(
            len(split.valid),
            eval_batch_size,
            lambda _, rows: self.encoder.collate([split.valid[i] for i in rows], [valid_tokens[i] for i in rows]),
        )

    def _check_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Raises ValueError unless the arrays of a cache are tokens of these rows."""
        num_templates = len(self.encoder.templates)
        for name, count in (("train", len(self.train_rows) * num_templates), ("valid", len(self.valid_rows))):
            tokens, lengths = arrays[name], arrays[f"{name}_lengths"]
            if (tokens.dtype, tokens.ndim, lengths.dtype, lengths.shape) != (np.int32, 1, np.int64, (count,)):
                raise ValueError(f"{name}: other types or shapes")
            if lengths.min() < 1 or lengths.max() > self.encoder.seq_len or lengths.sum() != len(tokens):
                raise ValueError(f"{name}: lengths out of range")
            if tokens.min() < 0 or tokens.max() >= self.tokenizer.vocab_size:
                raise ValueError(f"{name}: token ids out of range")

    @property
    def class_counts(self) -> list[int]:
        """Selected training rows that died and that survived."""
        return np.bincount([self.train_rows[i].survived or 0 for i in self.shown], minlength=2).tolist()

    def baselines(self) -> dict[str, float]:
        """Accuracies of baselines without a neural network on the validation rows."""
        return baselines.accuracies(self.encoder, self.train_rows, self.valid_rows)

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and data.json, which `restore_encoder` reads."""
        self.encoder.save(folder, source=self.name, fingerprint=self.fingerprint)

    @staticmethod
    def restore_encoder(folder: Path) -> PassengerEncoder:
        """See `DataModule.restore_encoder`."""
        return restore(folder)
