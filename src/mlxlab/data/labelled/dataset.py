"""Labelled rows as training and evaluation batches: written as text, or as the cells of a table."""

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Unpack

import numpy as np

from mlxlab.data.batch import FOLDS, Batch
from mlxlab.data.cache import content_key
from mlxlab.data.dataset import BaselineInputs, RowTexts, Table
from mlxlab.data.labelled.encoder import (
    LabelledEncoder,
    Renderer,
    TypedEncoder,
    restore_encoder,
)
from mlxlab.data.labelled.inputs import Inputs, ReadCells, Run, TextInputs
from mlxlab.data.labelled.labels import find_giveaways
from mlxlab.data.labelled.options import BatchOptions, LabelledOptions, check_split
from mlxlab.data.labelled.renderer import RowRenderer, feature_columns, fit_bounds
from mlxlab.data.labelled.row_split import SPLITS, SplitRows, digest, prepare_rows
from mlxlab.data.labelled.rows import BLOCK, Rows, open_rows, plain_columns
from mlxlab.data.labelled.types import Kind, read_table
from mlxlab.data.loader import EvalLoader, make_loader
from mlxlab.data.sources.arrow import TableRows
from mlxlab.data.sources.block import ErrorBudget, Source
from mlxlab.data.sources.messages import require_columns
from mlxlab.data.sources.open import open_source
from mlxlab.data.wrappers import wrap_batches
from mlxlab.errors import ConfigError
from mlxlab.files.untrusted import validate
from mlxlab.schema.constraints import Ge, Le, MaxLen, MinLen, Seed
from mlxlab.terminal.wording import percent

MAX_CLASSES_SHOWN = 10


class LabelledExamples:
    """A `DataModule` of labelled rows: what all such data sets share.

    Args:
        split: the rows, and what was fitted on those for training.
        inputs: what the model reads of them.
        renderer: writes rows for reports.
        baselines: what baselines read.
        copies: how often each training row is shown in an epoch.
    """

    format_name: ClassVar[str]  # the format that `save` writes

    def __init__(
        self,
        split: SplitRows,
        inputs: Inputs,
        renderer: Renderer,
        baselines: BaselineInputs,
        options: BatchOptions,
        seed: int,
        copies: int = 1,
    ) -> None:
        rows = split.rows
        self.rows = rows
        self.split = split
        self.split_sizes = (len(split.train), len(split.valid), len(split.test))
        self.targets = split.targets
        self._renderer = renderer
        self.inputs = inputs
        self.tokenizer = inputs.tokenizer
        self.encoder: TypedEncoder = inputs.encoder
        self.types = split.types
        self.columns = list(self.encoder.columns)
        self.row_lengths = inputs.row_lengths
        self.left_out_rows = split.left_out
        self.task = self.encoder.task
        self.baseline_inputs = baselines if options["baselines"] else None

        # The source of test rows comes last; validation rows do not depend on it.
        parts = rows.parts[: np.searchsorted(rows.starts, split.valid[-1], side="right")]
        sources = [part.source.fingerprint for part in parts]
        self.held_out = content_key(sources=sources, valid=digest(split.valid))
        train_ids = split.ids[split.train]
        chosen = options["select"].chosen(seed, train_ids)
        self._shown = np.arange(len(train_ids))
        if chosen is not None:
            self._shown = np.flatnonzero(np.isin(train_ids, chosen))
        self.fingerprint = content_key(
            tokens=inputs.key,
            labels=split.labels.state_dict(),
            seed=seed,
            copies=copies,
            shown=digest(self._shown),
        )
        self._make_loaders(options, seed, copies)
        lines = [self._describe_labels(), *inputs.lines]
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

    @property
    def training_rows(self) -> EvalLoader:
        """Every training row once."""
        return EvalLoader(len(self.split.train), BLOCK, partial(self._eval_batch, 0))

    def cells(self, positions: np.ndarray) -> Table:
        """The columns that the model reads, of the rows at these positions; training rows are the first ones."""
        return self.rows.table(self.columns, self.split.numbers[positions])

    def texts(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The texts of the rows with these ids."""
        order = np.argsort(self.split.ids)
        rows = order[np.searchsorted(self.split.ids, ids, sorter=order)]
        table = self.rows.table(list(self._renderer.types), rows)
        return ["\n".join(texts) for texts in self._renderer.render(table)]

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json and data.json for inference."""
        self.encoder.save(
            folder,
            format=self.format_name,
            label_column=self.encoder.label_column,
            source=self.rows.name,
            fingerprint=self.fingerprint,
        )

    def _make_loaders(self, options: BatchOptions, seed: int, copies: int) -> None:
        inputs = self.inputs
        by_row = inputs.lengths.reshape(-1, inputs.num_variants)
        examples = np.arange(len(self._shown) * copies)

        def lengths(epoch: int) -> np.ndarray:
            return inputs.lengths[inputs.sequences(epoch, *self._draw(examples))]

        def batch(epoch: int, examples: np.ndarray, length: int | None) -> Batch:
            return self._batch(epoch, *self._draw(examples), length)

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
        size = options["eval_batch_size"] or inputs.eval_batch_size
        num_train, num_valid, num_test = self.split_sizes
        self.valid = EvalLoader(num_valid, size, partial(self._eval_batch, num_train))
        self.test = EvalLoader(num_test, size, partial(self._eval_batch, num_train + num_valid))

    def _draw(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The position of each example's row, and its copy: 1, 2, ...

        Example e is row `shown[e % N]` of the N rows that are shown, in its copy number `e // N`.
        """
        copies, shown = np.divmod(examples, len(self._shown))
        return self._shown[shown], copies + 1

    def _batch(
        self,
        epoch: int,
        positions: np.ndarray,
        copies: int | np.ndarray,
        length: int | None = None,
    ) -> Batch:
        """The batch of these rows, as they are shown."""
        rows = self.inputs.take(self.inputs.sequences(epoch, positions, copies))
        ids = self.split.position_ids[positions]
        batch = self.encoder.collate(rows, self.targets, positions, ids, length)
        if self.inputs.folds is not None:
            batch = batch._replace(aux={FOLDS: self.inputs.folds[positions]})
        return batch

    def _eval_batch(self, first: int, rows: np.ndarray) -> Batch:
        """A batch of rows that are counted from a position; copy 0 of epoch 0 is that of an evaluation."""
        return self._batch(0, first + rows, 0)

    def _describe_labels(self) -> str:
        column = self.encoder.label_column
        if self.task.kind == "regression":
            return f"regression of {column} (mean {self.task.target_mean:.4g})"
        counts = Counter(dict(zip(self.task.labels, self.class_counts, strict=True)))
        total = max(len(self._shown), 1)
        largest = counts.most_common(MAX_CLASSES_SHOWN)
        shares = [f"{name} {percent(count / total)}" for name, count in largest]
        return f"{column}: {len(counts)} classes (training rows: {', '.join(shares)})"


class LabelledDataset(LabelledExamples):
    """The rows of a table, written as text, and their labels: a `DataModule`.

    Everything that is fitted (types, labels, bins of numbers, tokenizer) is fitted on the training rows alone.

    Args:
        target: the column to predict.
        text_column: the column of the text, or two columns for pairs of texts; null writes `column: value` for each
            of the columns.
        columns: the columns that the model reads; null takes all but those of target, group and time.
        exclude: columns that the model does not read, where it would read all.
        types: what columns hold, where it is not to be inferred from the training rows, such as {zip: category}.
        bins: quantiles of the training values by which a number is written, as q00, q01, ...; null writes its digits.

    Raises:
        InputNotFoundError, DataError, ServiceUnavailableError: a source is missing or malformed, the hub unreachable,
            or a column does not exist.
        ConfigError: settings do not go together.
    """

    format_name = "mlxlab.labelled/2"

    def __init__(
        self,
        target: str,
        text_column: str | Annotated[list[str], MinLen(1), MaxLen(2)] | None,
        columns: Annotated[list[str], MinLen(1)] | None,
        exclude: list[str],
        types: dict[str, Kind],
        bins: Annotated[int, Ge(2), Le(1000)] | None,
        *,
        seed: Seed,
        cache: Path,
        parameters: int,
        width: int,
        positions: int | None = None,
        read_cells: ReadCells | None = None,
        pretrained: Path | None = None,
        **options: Unpack[LabelledOptions],
    ) -> None:
        texts = [text_column] if isinstance(text_column, str) else text_column or []
        row_options: Any = {**options, "target": target, "kind": types.get(target)}
        check_split(row_options)
        errors = ErrorBudget(options["on_error"])
        source = open_source(options["source"], options["reading"], errors)
        if isinstance(source, TableRows):  # Some rows can be read only once.
            options["source"] = source
        keys = ("target", "group_column", "time_column")
        special = [row_options[key] for key in keys if row_options[key] is not None]
        names = choose_columns(source, texts, columns, exclude, special)
        require_columns(types, [*names, target], "data.types")
        chosen: dict[str, Kind] = {**types, **dict.fromkeys(texts, "text")}
        limits = (options["on_error"], [*names, *special], options["max_left_out"])
        sources = (options["source"], options["valid_source"], options["test_source"])
        named = [each for each in sources if each is not None]
        rows = Rows([open_rows(each, options["reading"], cache, *limits) for each in named])
        split = prepare_rows(rows, row_options, names, texts, chosen, seed)

        fitted = {name: each for name, each in split.types.items() if each.kind != "text"}
        train = read_table(rows.table(list(fitted), split.train), fitted)
        bounds = fit_bounds(train, bins)
        last_bin = max(bins or 0, 11) - 1  # It has at least two digits.
        renderer = RowRenderer(split.types, bool(texts), bounds, len(str(last_bin)))
        inputs: Inputs
        if read_cells is None:
            run = Run(cache, parameters, width, pretrained, positions)
            inputs = TextInputs(split, renderer, options, run)
        else:
            inputs = read_cells(split, seed, cache)
        written: dict[str, RowTexts] = {}
        if read_cells is None or len(fitted) < len(names):  # Some columns are texts.
            written[""] = renderer
        read_columns = None
        if not texts:
            read_columns = partial(feature_columns, types=inputs.encoder.types)
        baselines = BaselineInputs(read_columns, written)
        super().__init__(split, inputs, renderer.exact(), baselines, options, seed)
        self.model_columns = inputs.model_columns
        self.epoch_limits = inputs.epoch_limits
        self.min_steps = inputs.min_steps
        self.location = rows.location
        if self.task.kind == "classification":
            lines = find_giveaways(train, self.training_targets)
            self.sources[-1:-1] = [f"{rows.name}: {line}" for line in lines]

    @staticmethod
    def restore_encoder(folder: Path) -> LabelledEncoder:
        restore = partial(validate, shape=RowRenderer)
        return restore_encoder(folder, LabelledDataset.format_name, restore)


def choose_columns(
    source: Source,
    texts: Sequence[str],
    columns: Sequence[str] | None,
    exclude: Sequence[str],
    special: Sequence[str],
) -> list[str]:
    """The columns that the model reads; all where no key says which.

    Args:
        texts: columns that are a text of their own, one or two.
        columns, exclude: as the keys of `LabelledDataset`.
        special: columns that the model must not read.

    Raises:
        ConfigError: the keys do not go together, or the model would read a special column.
        DataError: a column does not exist.
    """
    if len(list(filter(None, [texts, columns, exclude]))) > 1:
        raise ConfigError("data: expected at most one of text_column, columns, exclude")
    read = list(texts or columns or [])
    require_columns([*read, *exclude, *special], source.columns(), source.name)
    named = [*special, *read]
    if len(set(named)) < len(named):
        twice = max(named, key=named.count)
        raise ConfigError(f"column {twice!r}: expected once in the keys of data, got it twice")
    if read:
        return read
    unread = [*exclude, *special]
    others = [name for name in plain_columns(source) if name not in unread]
    if not others:
        raise ConfigError(f"{source.name}: no column to predict from besides {', '.join(unread)}")
    return others
