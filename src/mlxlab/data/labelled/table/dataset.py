"""Tables: each row becomes a text, from whose words a model predicts a class, several labels, or a number."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from mlxlab.constraints import Count, Ge, Gt, Le, Lt, MaxLen, MinLen, Seed, Size
from mlxlab.data.dataset import Baseline, Table
from mlxlab.data.labelled.encoder import LabelledEncoder, read_state, restore_encoder
from mlxlab.data.labelled.examples import Batching, LabelledExamples, Run
from mlxlab.data.labelled.fit_labels import LabelOptions
from mlxlab.data.labelled.labelled_rows import LabelledRows, RowSources, reject_shared_columns
from mlxlab.data.labelled.row_split import split_sources
from mlxlab.data.labelled.rows import RowReading
from mlxlab.data.labelled.split import SplitOptions
from mlxlab.data.labelled.table.baselines import table_baselines
from mlxlab.data.labelled.table.fit_renderer import fit_renderer
from mlxlab.data.labelled.table.renderer import NumberFormat, restore_renderer
from mlxlab.data.labelled.table.template import Template, check_column, default_template, parse_template
from mlxlab.data.loaders.bucketing import FixedBatchSize, TokenBudget
from mlxlab.data.subset import ExampleSelection
from mlxlab.data.tokenizers.bpe import BPETokenizerTrainer
from mlxlab.data.tokenizers.character import CharTokenizerTrainer
from mlxlab.errors import ConfigError, DataError

FORMAT_NAME = "mlxlab.table/1"


class TableDataset:
    """The rows of a table, written as text, and their labels: a `DataModule`.

    Everything that is fitted (labels, bins of numbers, tokenizer) is fitted on the training rows alone.

    Args:
        source: a file, folder or glob of .csv, .tsv, .jsonl (each also .gz or .zst) or .parquet, a Hugging Face data
            set, or sklearn:NAME.
        valid_source: rows to validate on; null holds out some of `source`.
        test_source: rows that are evaluated once, after training; null for none.
        target: the column to predict.
        columns: the columns that the model reads; null takes all but those of target, group and time.
        template: the text of a row, with `{column}` for the value of a column and `{{` for a brace; null writes
            `column: value` for each of `columns`.
        numbers: how numbers are written.
        categorical: columns whose numbers are names, such as postcodes; they are written as they are.
        labels: the classes or labels in their order; null takes those of the training rows, sorted.
        task: single (one class), multi_label (any number of labels) or regression (a number); auto decides by the
            labels of `source`.
        label_delimiter: what stands between several labels of a row; null for JSON lists.
        valid_fraction: fraction of each class for validation, unless another key splits.
        folds: number of cross-validation folds; null for none.
        fold: the fold to validate on, from 0.
        group_column: rows of equal value in it stay on one side of the split.
        time_column: validates on the latest rows by this column, numbers or ISO dates.
        on_overlap: what to do about equal rows in two splits; drop leaves the training row out.
        on_error: strict ends the run at a malformed row or a missing label; skip leaves rows out.
        reading: how files are read.
        seq_len: maximum tokens of a row; longer ones are truncated.
        batch_size: rows per training batch.
        batching: how rows are grouped into batches.
        eval_batch_size: rows per evaluation batch; changes no result.
        tokenizer: trains the tokenizer; not used with a pretrained model or by a resumed run.
        overfit_batches: train on this many batches again and again; null trains on all.
        select: which training rows are shown, by their loss in an earlier run.
        prefetch: batches prepared in the background; 0 prepares each on demand.
        baselines: fit a linear model and gradient boosting on the same columns and rows, for the report.

    Raises:
        InputNotFoundError, DataError, ServiceUnavailableError: a source is missing or malformed, the hub unreachable.
        ConfigError: settings do not go together, or the template reads what it must not.
    """

    def __init__(
        self,
        source: str,
        valid_source: str | None,
        test_source: str | None,
        target: str,
        columns: Annotated[list[str], MinLen(1)] | None,
        template: Annotated[str, MinLen(1)] | None,
        numbers: NumberFormat,
        categorical: list[str],
        labels: list[str | int | float] | None,
        task: Literal["auto", "single", "multi_label", "regression"],
        label_delimiter: Annotated[str, MinLen(1), MaxLen(8)] | None,
        valid_fraction: Annotated[float, Gt(0), Lt(1)],
        folds: Annotated[int, Ge(2), Le(400)] | None,
        fold: Count,
        group_column: str | None,
        time_column: str | None,
        on_overlap: Literal["warn", "drop", "error"],
        on_error: Literal["strict", "skip"],
        reading: RowReading,
        seq_len: Annotated[int, Ge(8), Le(8192)],
        batch_size: Size,
        batching: FixedBatchSize | TokenBudget,
        eval_batch_size: Size,
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
        special = {"target": target, "group_column": group_column, "time_column": time_column}
        reject_shared_columns(special)
        files = (source, valid_source, test_source, reading, on_error)
        label = LabelOptions(target, task, labels, label_delimiter)
        where = RowSources(*files, label, group_column, time_column, inputs=None)
        how = SplitOptions(valid_fraction, folds, fold, valid_source is not None, group_column, time_column)
        rows = where.open(cache)
        parsed = _choose_template(rows, columns, template, categorical, special)
        inputs = list(dict.fromkeys(parsed.fields))
        split, fitted, column = split_sources(rows, where, inputs, [], how, on_overlap, seed)
        used = np.concatenate(split[:3])
        renderer, lines = fit_renderer(
            parsed, lambda name: rows.codes(name).take(used), np.arange(len(split.train)), numbers, categorical
        )
        batches = Batching(seq_len, batch_size, eval_batch_size, batching, overfit_batches, select, prefetch)
        run = Run(seed, cache, parameters, width, pretrained)
        self.examples = LabelledExamples(rows, split, column, fitted, renderer, tokenizer, batches, run)
        self.task, self.tokenizer, self.encoder = self.examples.task, self.examples.tokenizer, self.examples.encoder
        self.train, self.valid, self.test = self.examples.train, self.examples.valid, self.examples.test
        self.fingerprint, self.held_out = self.examples.fingerprint, self.examples.held_out
        self.sources = [*(f"{rows.name}: {line}" for line in lines), *self.examples.sources]
        self.class_counts, self.texts = self.examples.class_counts, self.examples.texts
        self._renderer, self._has_baselines = renderer, baselines

    def baselines(self) -> list[Baseline]:
        if not self._has_baselines:
            return []
        examples, numeric = self.examples, self._renderer.bounds
        targets, _ = examples.targets.of(np.arange(len(examples.split.train)))

        def cells(rows: np.ndarray) -> Table:
            return examples.rows.table(self._renderer.columns, rows)

        return table_baselines(cells, examples.split[:3], targets, numeric, self.task)

    def save(self, folder: Path) -> None:
        self.examples.save(folder, FORMAT_NAME)

    @staticmethod
    def restore_encoder(folder: Path) -> LabelledEncoder:
        state = read_state(folder, FORMAT_NAME)
        try:
            renderer = restore_renderer(state["renderer"])
        except DataError as error:
            raise DataError(f"{folder / 'data.json'}: {error}") from None
        return restore_encoder(folder, state, renderer)


def _choose_template(
    rows: LabelledRows,
    columns: Sequence[str] | None,
    template: str | None,
    categorical: Sequence[str],
    special: dict[str, str | None],
) -> Template:
    """The template, checked: ConfigError if it, `columns` or `categorical` name what there is not or must not be."""
    present = rows.parts[0].columns
    names = {name: f"data.{key}" for key, name in special.items() if name is not None}
    reserved = {name: key for name, key in names.items() if key == "data.target"}
    if template is not None and columns is not None:
        raise ConfigError("data.columns has no effect with data.template, whose placeholders name the columns")
    chosen = [name for name in present if name not in names] if columns is None else columns
    if repeated := [name for name in chosen if list(chosen).count(name) > 1]:
        raise ConfigError(f"data.columns: {repeated[0]} is given twice")
    for name in chosen:
        check_column(name, present, reserved, f"data.columns: {name}")
    if not chosen:
        raise ConfigError(f"{rows.name}: expected a column other than {', '.join(names)} to predict from")
    parsed = default_template(chosen) if template is None else parse_template(template, present, reserved)
    for name in categorical:
        if name not in parsed.fields:
            check_column(name, present, reserved, f"data.categorical: {name}")
            raise ConfigError(f"data.categorical: {name} is not among the columns that the model reads")
    return parsed
