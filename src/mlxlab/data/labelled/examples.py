"""Labelled rows as training and evaluation batches: what all labelled data sets share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from mlxlab.data.batch import Batch
from mlxlab.data.cache import content_key, describe_tokens
from mlxlab.data.dataset import Baseline, KnownRows, Table
from mlxlab.data.labelled.encoder import LabelledEncoder, Renderer, Texts
from mlxlab.data.labelled.options import BatchOptions
from mlxlab.data.labelled.row_split import PreparedRows, digest
from mlxlab.data.labelled.rows import hash_rows
from mlxlab.data.labelled.token_cache import TokenCache
from mlxlab.data.labelled.types import spell_table
from mlxlab.data.loaders.bucketing import make_loader
from mlxlab.data.loaders.loader import EvalLoader
from mlxlab.data.loaders.wrappers import wrap_batches
from mlxlab.data.row_lengths import NO_LIMIT, measure_lengths
from mlxlab.data.tokenizers.fit import Corpus
from mlxlab.wording import counted, percent

FORMAT = 1  # of the order of examples and the form of texts: another number is another fingerprint
MAX_CLASSES_SHOWN = 10


@dataclass(frozen=True)
class Run:
    """What a data set learns of the run it is built for, see `DataModule`."""

    seed: int
    cache: Path
    parameters: int
    width: int
    pretrained: Path | None


class BaselineRows(NamedTuple):
    """What baselines read: the cells of rows by number, and the numbers of the training, validation and test rows.

    Rows of one split only are read at a time.
    """

    table: Callable[[Sequence[str], np.ndarray], Table]
    split: tuple[np.ndarray, np.ndarray, np.ndarray]


class LabelledExamples(ABC):
    """A `DataModule` of labelled rows, but for its baselines and texts.

    The training rows are in memory only as targets and lengths; texts and tokens are read from mapped files.

    Args:
        prepared: the rows, and what was fitted on those for training.
        renderer: fitted on the training rows too.
        copies: how often each training row is shown in an epoch.
    """

    format_name: ClassVar[str]  # of what `save` writes

    def __init__(
        self,
        prepared: PreparedRows,
        renderer: Renderer,
        options: BatchOptions,
        run: Run,
        copies: int = 1,
    ) -> None:
        rows = prepared.rows
        split = prepared.split
        labels = prepared.labels
        self.rows = rows
        self.split = split
        self.labels = labels
        self.renderer = renderer
        seq_len = options["seq_len"]
        # The numbers of the rows, training first; a position is an index into them.
        self._numbers = np.concatenate(split[:3])
        self._ids = prepared.ids[self._numbers]
        self._num_sequences = len(split.train) * renderer.num_variants  # of the training rows
        self.targets = labels.encode(prepared.column.take(self._numbers))
        content = {
            "sources": rows.fingerprint,
            "split": split.digests(),
            "renderer": dict(renderer.state_dict()),
        }
        corpus = Corpus(
            self.training_texts(),
            content_key(**content),
            run.cache,
            run.parameters,
            run.width,
            round(rows.mean_bytes(renderer.columns) * len(split.train)),
            run.pretrained,
        )
        fit = options["tokenizer"].fit(corpus)
        self.tokenizer = fit.tokenizer
        self.curve = fit.curve
        target = prepared.column.name
        self.encoder = LabelledEncoder(renderer, labels, target, fit.tokenizer, seq_len)
        self.task = self.encoder.task
        tokens_key = content_key(
            format=FORMAT, seq_len=seq_len, tokenizer=fit.tokenizer.fingerprint, **content
        )
        path = run.cache / f"labelled-{tokens_key}.tokens"
        num_sequences = self._num_sequences + len(split.valid) + len(split.test)
        self._tokens = TokenCache(
            path, num_sequences, self._tokenize, fit.tokenizer.vocab_size, seq_len
        )
        measured = measure_lengths(self._tokens.lengths, seq_len, self._full_lengths)
        self.row_lengths = measured._replace(left_out=split.left_out)
        self.held_out = content_key(sources=rows.fingerprint, valid=split.digests()[1])
        train_ids = prepared.ids[split.train]
        chosen = options["select"].chosen(run.seed, train_ids)
        self._shown = np.arange(len(split.train))
        if chosen is not None:
            self._shown = np.flatnonzero(np.isin(train_ids, chosen))
        self.fingerprint = content_key(
            tokens=tokens_key,
            labels=dict(labels.state_dict()),
            seed=run.seed,
            copies=copies,
            shown=digest(self._shown),
        )
        examples = np.arange(len(self._shown) * copies)
        by_row = self._tokens.lengths[: self._num_sequences].reshape(len(split.train), -1)

        def lengths(epoch: int) -> np.ndarray:
            return self._tokens.lengths[self._draw(epoch, examples)[1]]

        loader = make_loader(
            lengths,
            options["batching"],
            options["batch_size"],
            run.seed,
            self._batch,
            self.fingerprint,
            by_row[self._shown].ravel(),
        )
        self.train = wrap_batches(loader, options["prefetch"], options["overfit_batches"])
        self.valid = self._eval_loader(len(split.train), len(split.valid), options)
        first_test = len(split.train) + len(split.valid)
        self.test = self._eval_loader(first_test, len(split.test), options)
        self._fits_baselines = options["baselines"]
        self.sources = [
            *(part.describe() for part in rows.parts),
            *split.lines,
            f"{rows.name}: {self._describe_labels()}",
            *(f"{rows.name}: {line}" for line in fit.lines),
            *self._describe_selection(),
            f"{rows.name}: {describe_tokens(self._tokens.outcome)}",
            self._describe_tokens(),
        ]

    @property
    def training_targets(self) -> np.ndarray:
        """Of all training rows, as in a `Batch`."""
        return self.targets.of(np.arange(len(self.split.train)))[0]

    @property
    def valid_targets(self) -> np.ndarray:
        """Of all validation rows, as in a `Batch`."""
        first = len(self.split.train)
        return self.targets.of(np.arange(first, first + len(self.split.valid)))[0]

    @property
    def num_examples(self) -> dict[str, int]:
        """By split; of the training rows those that are selected."""
        sizes = {
            "training": len(self._shown),
            "validation": len(self.split.valid),
            "test": len(self.split.test),
        }
        return {split: size for split, size in sizes.items() if size}

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
        """As `LabelledRows`."""
        inputs = [*self.renderer.columns]
        is_trained = self._are_among(self.split.train, table, [*inputs, self.encoder.label_column])
        is_validated = self._are_among(self.split.valid, table, inputs) & ~is_trained
        return KnownRows(int(is_trained.sum()), int(is_validated.sum()))

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and data.json for inference, and how the vocabulary size was chosen."""
        self.encoder.save(folder, self.format_name, self.rows.name, self.fingerprint)
        if self.curve is not None:
            self.curve.save(folder)

    def baselines(self) -> list[Baseline]:
        if not self._fits_baselines:
            return []
        return self.fit_baselines(self.baseline_rows())

    def baselines_on(self, table: Table) -> list[Baseline]:
        if not self._fits_baselines:
            return []
        return self.fit_baselines(self.baseline_rows(table))

    @abstractmethod
    def fit_baselines(self, rows: BaselineRows) -> list[Baseline]:
        """Predictions of methods that are fitted on the training rows."""

    def baseline_rows(self, other: Table | None = None) -> BaselineRows:
        """The rows of all splits, or the training rows, and these others in place of validation and test rows."""
        if other is None:
            return BaselineRows(self.rows.table, self.split[:3])
        first = len(self.rows)
        count = len(next(iter(other.values())))

        def table(columns: Sequence[str], numbers: np.ndarray) -> Table:
            if not len(numbers) or numbers[0] < first:
                return self.rows.table(columns, numbers)
            taken = (numbers - first).tolist()
            return {name: list(map(other[name].__getitem__, taken)) for name in columns}

        valid = np.arange(first, first + count)
        return BaselineRows(table, (self.split.train, valid, np.zeros(0, np.int64)))

    def constant_baseline(self, rows: BaselineRows) -> Baseline:
        from mlxlab.data.labelled.baselines import constant_baseline

        _, valid, test = rows.split
        return constant_baseline(self.training_targets, len(valid), len(test), self.task)

    def text_baselines(
        self, rows: BaselineRows, renderer: Renderer, plain: bool = False
    ) -> list[Baseline]:
        """Predictions by the words of the texts: fitted on every variant of a row, averaged over them.

        Arguments as for `tfidf_baselines`.
        """
        from mlxlab.data.labelled.text_baselines import tfidf_baselines

        num_variants = renderer.num_variants
        variants = np.arange(num_variants)
        split = [(numbers[:, None] * num_variants + variants).ravel() for numbers in rows.split]

        def texts(sequences: np.ndarray) -> list[str]:
            numbers, variants = np.divmod(sequences, num_variants)
            rendered = render_variants(renderer, rows.table, numbers, variants)
            return ["\n".join(parts) for parts in rendered]

        def average(predictions: np.ndarray) -> np.ndarray:
            return predictions.reshape(-1, num_variants, *predictions.shape[1:]).mean(axis=1)

        targets = np.repeat(self.training_targets, num_variants, axis=0)
        fitted = tfidf_baselines(texts, split, targets, self.task, plain)
        return [Baseline(name, average(valid), average(test)) for name, valid, test in fitted]

    def texts_of(self, rows: BaselineRows, numbers: np.ndarray) -> list[str]:
        """The texts of these rows, two of a pair on a line each."""
        table = rows.table(self.renderer.columns, numbers)
        return ["\n".join(texts) for texts in self.renderer.render(table)]

    def _are_among(self, numbers: np.ndarray, table: Table, names: Sequence[str]) -> np.ndarray:
        """(N,) True for the rows of the table whose values in these columns are those of one of the numbered rows."""
        types = {**self.renderer.types, self.encoder.label_column: self.labels.type}
        chosen = {name: types[name] for name in names}
        blocks = self.rows.blocks(names, numbers)
        own = [hash_rows(spell_table(block, chosen)) for block in blocks]
        return np.isin(hash_rows(spell_table(table, chosen)), np.concatenate(own))

    def _draw(self, epoch: int, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The position of the row of each example of an epoch, and the number of its sequence.

        Example e is row `shown[e % N]` of the N rows that are shown, in its copy number `e // N`.
        """
        copies, shown = np.divmod(examples, len(self._shown))
        positions = self._shown[shown]
        variants = self.renderer.choose(self._ids[positions], epoch, copies + 1)
        return positions, positions * self.renderer.num_variants + variants

    def _batch(self, epoch: int, examples: np.ndarray, length: int | None) -> Batch:
        return self._collate(*self._draw(epoch, examples), length)

    def _eval_loader(self, first: int, count: int, options: BatchOptions) -> EvalLoader:
        """Batches of the rows from this position on."""

        def collate(rows: np.ndarray) -> Batch:
            positions = first + rows
            sequences = positions - len(self.split.train) + self._num_sequences
            return self._collate(positions, sequences)

        return EvalLoader(count, options["eval_batch_size"], collate)

    def _collate(
        self, positions: np.ndarray, sequences: np.ndarray, length: int | None = None
    ) -> Batch:
        tokens = self._tokens.take(sequences)
        return self.encoder.collate(tokens, self.targets, positions, self._ids[positions], length)

    def _tokenize(self, sequences: np.ndarray) -> list[np.ndarray]:
        return self.encoder.tokenize(self._render(sequences))

    def _full_lengths(self, sequences: np.ndarray) -> list[int]:
        tokens = replace(self.encoder, seq_len=NO_LIMIT).tokenize(self._render(sequences))
        return [*map(len, tokens)]

    def _render(self, sequences: np.ndarray) -> Texts:
        """The texts of sequences in rising order: all of the training rows, then one of each other row."""
        is_train = sequences < self._num_sequences
        positions, variants = np.divmod(sequences[is_train], self.renderer.num_variants)
        train = render_variants(self.renderer, self.rows.table, self._numbers[positions], variants)
        others = sequences[~is_train] - self._num_sequences + len(self.split.train)
        table = self.rows.table(self.renderer.columns, self._numbers[others])
        return [*train, *self.renderer.render(table)]

    def training_texts(self) -> Iterator[str]:
        """Every variant of every training row, on which the tokenizer is trained."""
        for table in self.rows.blocks(self.renderer.columns, self.split.train):
            yield from (text for texts in self.renderer.render_all(table) for text in texts)

    def _describe_labels(self) -> str:
        column = self.encoder.label_column
        counts = self.class_counts
        if self.task.kind == "regression":
            spread = f"mean {self.labels.mean:.4g}, standard deviation {self.labels.deviation:.4g}"
            return f"regression of {column} (training rows: {spread})"
        order = np.argsort(counts)[::-1][:MAX_CLASSES_SHOWN]
        total = max(len(self._shown), 1)
        shares = [f"{self.task.labels[i]} {percent(counts[i] / total)}" for i in order]
        if len(counts) > MAX_CLASSES_SHOWN:
            shares.append("...")
        kind = "classes"
        if self.task.kind == "multi_label":
            kind = "labels, of which a row may have several"
        return f"{column}: {len(counts)} {kind} (training rows: {', '.join(shares)})"

    def _describe_selection(self) -> list[str]:
        if len(self._shown) == len(self.split.train):
            return []
        return [f"{self.rows.name}: {counted(len(self._shown), 'training row')} selected"]

    def _describe_tokens(self) -> str:
        lengths = self._tokens.lengths
        vocabulary = f"vocabulary: {self.tokenizer.vocab_size:,}"
        text = f"{lengths.sum():,} tokens ({vocabulary}), at most {lengths.max()} a row"
        measured = self.row_lengths
        if measured.too_long and not measured.are_many:
            text += f"; {measured.describe()}"
        return f"{self.rows.name}: {text}"


def render_variants(
    renderer: Renderer,
    table: Callable[[Sequence[str], np.ndarray], Table],
    rows: np.ndarray,
    variants: np.ndarray,
) -> list[tuple[str, ...]]:
    """The texts of these rows, each by one of its variants."""
    used, indices = np.unique(rows, return_inverse=True)
    every = renderer.render_all(table(renderer.columns, used))
    return [every[index] for index in indices * renderer.num_variants + variants]
