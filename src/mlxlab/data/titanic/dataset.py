"""The Titanic data set: one sentence per passenger, classified into died and survived."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from mlxlab.constraints import Count, FilePath, Ge, Gt, Le, Lt, MinLen, Seed, Size
from mlxlab.data.batch import Batch
from mlxlab.data.cache import cached, content_key, describe_tokens
from mlxlab.data.dataset import Baseline, KnownRows, Table
from mlxlab.data.loaders.bucketing import FixedBatchSize, TokenBudget, make_loader
from mlxlab.data.loaders.wrappers import wrap_batches
from mlxlab.data.row_lengths import NO_LIMIT, measure_lengths
from mlxlab.data.subset import ExampleSelection
from mlxlab.data.titanic.baselines import predictions
from mlxlab.data.titanic.encoder import PassengerEncoder, restore
from mlxlab.data.titanic.passenger import passengers_of, table_of
from mlxlab.data.titanic.sources import load_passengers, load_test_passengers, split_rows
from mlxlab.data.titanic.templates import TEMPLATES, VERSION, fit_statistics, render_sentence
from mlxlab.data.tokenizers.bpe import BPETokenizerTrainer
from mlxlab.data.tokenizers.character import CharTokenizerTrainer
from mlxlab.data.tokenizers.fit import Corpus
from mlxlab.errors import DataError

CHECK_EVERY = 64  # of the training rows in the token cache, one in this number is tokenized again


@dataclass(frozen=True)
class Augment:
    """Repeats training rows within an epoch, each time with a newly drawn template.

    Args:
        copies: repetitions of each training row per epoch.
    """

    copies: Annotated[int, Ge(1), Le(1000)]


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
        tokenizer: trains the tokenizer; not used with a pretrained model or by a resumed run.
        overfit_batches: train on this many batches again and again; null trains on all.
        select: which training rows are shown, by their loss in an earlier run; statistics and tokenizer are fitted on
            all of them.
        prefetch: batches prepared in the background; 0 prepares each on demand.
        baselines: whether methods without a neural network are fitted at the end of a run, for comparison.

    Raises:
        InputNotFoundError, DataError: a source is missing or malformed.
        ConfigError: `fold` is not a fold of `folds`.
    """

    test: Sequence[Batch] = ()

    def __init__(
        self,
        source: FilePath | None,
        valid_source: FilePath | None,
        templates: Annotated[
            list[Literal["basic", "narrative", "descriptive", "story", "brief", "full", "group"]],
            MinLen(1),
        ],
        augment: Augment,
        seq_len: Annotated[int, Ge(8), Le(8192)],
        batch_size: Size,
        batching: FixedBatchSize | TokenBudget,
        eval_batch_size: Size,
        valid_fraction: Annotated[float, Gt(0), Lt(1)],
        folds: Annotated[int, Ge(2), Le(400)] | None,
        fold: Count,
        tokenizer: BPETokenizerTrainer | CharTokenizerTrainer,
        overfit_batches: Size | None,
        select: ExampleSelection,
        prefetch: Annotated[int, Ge(0), Le(1024)],
        baselines: bool,
        *,
        seed: Seed,
        cache: Path,
        parameters: int,
        width: int,
        pretrained: Path | None = None,
    ) -> None:
        self._fits_baselines = baselines
        source_rows = load_passengers(source)
        split = split_rows(source_rows.train, valid_source, valid_fraction, folds, fold, seed)
        self.name, self.train_rows, self.valid_rows = source_rows.name, split.train, split.valid
        texts = {str(name): TEMPLATES[name] for name in dict.fromkeys(templates)}
        statistics = fit_statistics(split.train, labels="group" in texts)
        sentences = (
            render_sentence(row, text, statistics) for row in split.train for text in texts.values()
        )
        corpus_key = _digest(split.train, texts, VERSION)
        fit = tokenizer.fit(
            Corpus(sentences, corpus_key, cache, parameters, width, pretrained=pretrained)
        )
        self.encoder = PassengerEncoder(texts, statistics, fit.tokenizer, seq_len, seed)
        self.task, self.tokenizer, self.curve = self.encoder.task, fit.tokenizer, fit.curve
        self.held_out = content_key(
            source=source_rows.sha256, valid=[row.id for row in split.valid]
        )

        content = (source_rows.sha256, split.digest, split.train, split.valid, augment.copies)
        self.fingerprint = content_key(content=_digest(*content), **self.encoder.state_dict())
        path = cache / f"{self.name}-{self.fingerprint}.tokens"
        tokens, outcome = cached(path, self._tokenize, _to_bytes, self._from_bytes)
        self._tokens, valid_tokens = tokens[: -len(split.valid)], tokens[-len(split.valid) :]
        self._ids = np.array([row.id for row in split.train])
        chosen = select.chosen(seed, self._ids)
        ids = self._ids if chosen is None else chosen
        self.shown = np.flatnonzero(np.isin(self._ids, ids))  # indices into train_rows
        self._num_examples, is_subset = (
            len(self.shown) * augment.copies,
            len(self.shown) < len(split.train),
        )
        if is_subset:
            self.fingerprint = content_key(
                tokens=self.fingerprint, ids=self._ids[self.shown].tolist()
            )
        self._lengths = lengths = np.array(
            [*map(len, self._tokens)]
        )  # of all sentences, drawn or not
        self.row_lengths = measure_lengths(
            np.array([*map(len, tokens)]), seq_len, self._full_lengths
        )
        self.sources = [
            *source_rows.description,
            f"{self.name}: {len(split.train):,} training rows, {len(split.valid):,} validation rows ({split.method})",
            *(f"{self.name}: {line}" for line in fit.lines),
            *([f"{self.name}: {len(self.shown)} of them selected"] if is_subset else []),
            f"{self.name}: {describe_tokens(outcome)}",
            self._describe_tokens(),
        ]
        batches = make_loader(
            self._drawn_lengths, batching, batch_size, seed, self._batch, self.fingerprint, lengths
        )
        self.train = wrap_batches(batches, prefetch, overfit_batches)
        slices = [
            slice(start, start + eval_batch_size)
            for start in range(0, len(split.valid), eval_batch_size)
        ]
        self.valid = [
            self.encoder.collate(split.valid[rows], valid_tokens[rows]) for rows in slices
        ]

    @property
    def num_examples(self) -> dict[str, int]:
        return {"training": len(self.shown), "validation": len(self.valid_rows)}

    def _draw(self, epoch: int, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The row of each example of an epoch, and the index in `_tokens` of its sentence.

        Example e is row `shown[e % N]` of the N rows that are shown, in its copy number `e // N`.
        """
        copies, positions = np.divmod(examples, len(self.shown))
        rows = self.shown[positions]
        templates = self.encoder.choose(
            self._ids[rows], epoch, copies + 1
        )  # copy 0 is that for evaluation
        return rows, rows * len(self.encoder.templates) + templates

    def _drawn_lengths(self, epoch: int) -> np.ndarray:
        return self._lengths[self._draw(epoch, np.arange(self._num_examples))[1]]

    def _batch(self, epoch: int, examples: np.ndarray, length: int | None) -> Batch:
        rows, sentences = self._draw(epoch, examples)
        return self.encoder.collate(
            [self.train_rows[i] for i in rows], [self._tokens[i] for i in sentences], length
        )

    def _tokenize(self) -> list[np.ndarray]:
        """Tokens of every sentence of the training rows, row by row and one per template; then those for evaluation."""
        texts = [*self.encoder.all_texts(self.train_rows), *self.encoder.texts(self.valid_rows)]
        return self.tokenizer.encode_batch(texts, self.encoder.seq_len)

    def _describe_tokens(self) -> str:
        lengths, measured = self._lengths, self.row_lengths
        text = f"{lengths.sum():,} tokens (vocabulary: {self.tokenizer.vocab_size:,}), at most {lengths.max()} a row"
        too_long = f"; {measured.describe()}" if measured.too_long and not measured.are_many else ""
        return f"{self.name}: {text}{too_long}"

    def _full_lengths(self, sentences: np.ndarray) -> list[int]:
        texts = [*self.encoder.all_texts(self.train_rows), *self.encoder.texts(self.valid_rows)]
        return [*map(len, self.tokenizer.encode_batch([texts[i] for i in sentences], NO_LIMIT))]

    def _from_bytes(self, data: bytes) -> list[np.ndarray]:
        """The inverse of `_to_bytes`; raises DataError unless `_tokenize` could have returned the result."""
        num_templates, seq_len = len(self.encoder.templates), self.encoder.seq_len
        count = len(self.train_rows) * num_templates + len(self.valid_rows)
        values = np.frombuffer(data[: len(data) // 4 * 4], np.int32)
        lengths, tokens = values[:count], values[count:]
        if (
            len(values) < count
            or lengths.min() < 1
            or lengths.max() > seq_len
            or lengths.sum() != len(tokens)
        ):
            raise DataError("other lengths than those of the sentences")
        if tokens.min() < 0 or tokens.max() >= self.tokenizer.vocab_size:
            raise DataError("token ids out of range")
        sequences = np.split(tokens, np.cumsum(lengths)[:-1])
        for row in range(0, len(self.train_rows), CHECK_EVERY):
            expected = self.tokenizer.encode_batch(
                self.encoder.all_texts(self.train_rows[row : row + 1]), seq_len
            )
            if not all(map(np.array_equal, expected, sequences[row * num_templates :])):
                raise DataError("other tokens than those of the sentences")
        return sequences

    @property
    def class_counts(self) -> list[int]:
        """Selected training rows that died and that survived."""
        return np.bincount(
            [self.train_rows[i].survived or 0 for i in self.shown], minlength=2
        ).tolist()

    def baselines(self) -> list[Baseline]:
        if not self._fits_baselines:
            return []
        return predictions(self.encoder, self.train_rows, self.valid_rows)

    def baselines_on(self, table: Table) -> list[Baseline]:
        if not self._fits_baselines:
            return []
        return predictions(self.encoder, self.train_rows, passengers_of(table))

    def count_known_rows(self, table: Table) -> KnownRows:
        training = {*self.train_rows}
        validation = {row._replace(survived=None) for row in self.valid_rows}
        rows = passengers_of(table)
        others = [row._replace(survived=None) for row in rows if row not in training]
        return KnownRows(len(rows) - len(others), sum(row in validation for row in others))

    def texts(self, ids: Sequence[int]) -> list[str]:
        rows = {row.id: row for row in self.valid_rows}
        return self.encoder.texts([rows[number] for number in ids])

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and data.json for inference, and how the vocabulary size was chosen."""
        self.encoder.save(folder, source=self.name, fingerprint=self.fingerprint)
        if self.curve is not None:
            self.curve.save(folder)

    @staticmethod
    def restore_encoder(folder: Path) -> PassengerEncoder:
        return restore(folder)

    @staticmethod
    def test_rows() -> Table:
        """The 418 real rows 892..1309, with labels."""
        return table_of(load_test_passengers())


def _to_bytes(sequences: Sequence[np.ndarray]) -> bytes:
    return np.concatenate([np.array([*map(len, sequences)], np.int32), *sequences]).tobytes()


def _digest(*content: object) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()
