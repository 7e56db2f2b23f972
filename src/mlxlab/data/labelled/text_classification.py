"""Labelled texts: a class, several labels, or a number for each text or pair of texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypedDict

from mlxlab.constraints import Count, Ge, Gt, Le, Lt, MaxLen, MinLen, Seed, Size
from mlxlab.data.dataset import Baseline, Table
from mlxlab.data.labelled.encoder import LabelledEncoder, Texts, read_state, restore_encoder
from mlxlab.data.labelled.examples import Batching, LabelledExamples, Run
from mlxlab.data.labelled.fit_labels import LabelOptions
from mlxlab.data.labelled.labelled_rows import RowSources, reject_shared_columns
from mlxlab.data.labelled.row_split import split_sources
from mlxlab.data.labelled.rows import RowReading
from mlxlab.data.labelled.split import SplitOptions
from mlxlab.data.loaders.bucketing import FixedBatchSize, TokenBudget
from mlxlab.data.subset import ExampleSelection
from mlxlab.data.tokenizers.bpe import BPETokenizerTrainer
from mlxlab.data.tokenizers.character import CharTokenizerTrainer
from mlxlab.errors import DataError
from mlxlab.files.untrusted import ShapeError, validate

FORMAT_NAME = "mlxlab.text_classification/1"


class ColumnsState(TypedDict):
    columns: Annotated[list[str], MinLen(1), MaxLen(2)]


@dataclass(frozen=True)
class TextColumns:
    """Renders a row as the text of one column, or as those of two."""

    columns: Sequence[str]

    @property
    def is_pair(self) -> bool:
        return len(self.columns) == 2

    def render(self, table: Table) -> Texts:
        for name in self.columns:
            if name not in table:
                raise DataError(f"no column {name!r}, expected one of {', '.join(table)}")
        cells = [[cell or "" for cell in table[name]] for name in self.columns]
        return list(zip(*cells, strict=True))

    def state_dict(self) -> Mapping[str, object]:
        return {"columns": list(self.columns)}


class TextClassificationDataset:
    """Texts and their labels, from files of your own: classes, several labels at a time, or numbers.

    Everything that is fitted (labels, tokenizer, statistics) is fitted on the training rows alone.

    Args:
        source: a file, folder or glob of .csv, .tsv, .jsonl (each also .gz or .zst) or .parquet, a Hugging Face data
            set, or sklearn:NAME.
        valid_source: rows to validate on; null holds out some of `source`.
        test_source: rows that are evaluated once, after training; null for none.
        text_column: the column of the text, or two columns for pairs of texts.
        label_column: the column of the label.
        labels: the classes or labels in their order; null takes those of the training rows, sorted.
        task: single (one class), multi_label (any number of labels) or regression (a number); auto decides by the
            labels of `source`.
        label_delimiter: what stands between several labels of a row; null for JSON lists.
        valid_fraction: fraction of each class for validation, unless another key splits.
        folds: number of cross-validation folds; null for none.
        fold: the fold to validate on, from 0.
        group_column: rows of equal value in it stay on one side of the split.
        time_column: validates on the latest rows by this column, numbers or ISO dates.
        on_overlap: what to do about equal texts in two splits; drop leaves the training row out.
        on_error: strict ends the run at a malformed row, an empty text or a missing label; skip leaves rows out.
        reading: how files are read.
        seq_len: maximum tokens of a text or pair; longer ones are truncated.
        batch_size: rows per training batch.
        batching: how rows are grouped into batches.
        eval_batch_size: rows per evaluation batch; changes no result.
        tokenizer: trains the tokenizer; not used with a pretrained model or by a resumed run.
        overfit_batches: train on this many batches again and again; null trains on all.
        select: which training rows are shown, by their loss in an earlier run.
        prefetch: batches prepared in the background; 0 prepares each on demand.
        baselines: fit methods without a neural network on the same rows, for the report.

    Raises:
        InputNotFoundError, DataError, ServiceUnavailableError: a source is missing or malformed, the hub unreachable.
        ConfigError: settings do not go together.
    """

    def __init__(
        self,
        source: str,
        valid_source: str | None,
        test_source: str | None,
        text_column: str | Annotated[list[str], MinLen(1), MaxLen(2)],
        label_column: str,
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
        columns = [text_column] if isinstance(text_column, str) else text_column
        text_keys = {f"text_column[{i}]" if len(columns) > 1 else "text_column": name for i, name in enumerate(columns)}
        special = {"label_column": label_column, "group_column": group_column, "time_column": time_column}
        reject_shared_columns(text_keys | special)
        files = (source, valid_source, test_source, reading, on_error)
        label = LabelOptions(label_column, task, labels, label_delimiter)
        where = RowSources(*files, label, group_column, time_column, text_keys)
        how = SplitOptions(valid_fraction, folds, fold, valid_source is not None, group_column, time_column)
        rows = where.open(cache)
        split, fitted, column = split_sources(rows, where, columns, columns, how, on_overlap, seed)
        batches = Batching(seq_len, batch_size, eval_batch_size, batching, overfit_batches, select, prefetch)
        run = Run(seed, cache, parameters, width, pretrained)
        self.examples = LabelledExamples(rows, split, column, fitted, TextColumns(columns), tokenizer, batches, run)
        self.task, self.tokenizer, self.encoder = self.examples.task, self.examples.tokenizer, self.examples.encoder
        self.train, self.valid, self.test = self.examples.train, self.examples.valid, self.examples.test
        self.fingerprint, self.held_out = self.examples.fingerprint, self.examples.held_out
        self.sources, self.class_counts = self.examples.sources, self.examples.class_counts
        self.texts, self._has_baselines = self.examples.texts, baselines

    def baselines(self) -> list[Baseline]:
        return self.examples.text_baselines() if self._has_baselines else []

    def save(self, folder: Path) -> None:
        self.examples.save(folder, FORMAT_NAME)

    @staticmethod
    def restore_encoder(folder: Path) -> LabelledEncoder:
        state = read_state(folder, FORMAT_NAME)
        try:
            columns = validate(state["renderer"], ColumnsState)["columns"]
        except ShapeError as error:
            raise DataError(f"{folder / 'data.json'}: renderer: {error}") from None
        return restore_encoder(folder, state, TextColumns(columns))
