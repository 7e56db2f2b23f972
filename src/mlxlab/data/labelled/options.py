"""The keys of `data` that all data sets of labelled rows have."""

from typing import Annotated, Literal, TypedDict

from mlxlab.data.dataset import ExampleSelection
from mlxlab.data.labelled.types import Kind
from mlxlab.data.loader import FixedBatchSize, TokenBudget
from mlxlab.data.sources.block import OnError
from mlxlab.data.sources.open import Reading
from mlxlab.data.tokenizers.bpe import BPETokenizerTrainer
from mlxlab.data.tokenizers.fit import CharTokenizerTrainer
from mlxlab.errors import ConfigError
from mlxlab.schema.constraints import Count, Ge, Gt, Le, Lt, MaxLen, MinLen, Size
from mlxlab.terminal.wording import shown


class BatchOptions(TypedDict):
    """How labelled rows are split, and become batches.

    Args:
        valid_fraction: fraction of each class for validation, unless another key splits.
        folds: number of cross-validation folds; null for none.
        fold: the fold to validate on, from 0.
        seq_len: maximum tokens of a row; longer ones are truncated. Null is 128, or up to 512 to hold 99 % of the training rows whole.
        batch_size: rows per training batch; null is 32 of texts, 170 to 510 of the cells of a table.
        batching: how rows are grouped into batches.
        eval_batch_size: rows per evaluation batch; null is 64 of texts, 1,024 of cells. Changes no result.
        tokenizer: trains the tokenizer; not used with a pretrained model or by a resumed run.
        overfit_batches: train on this many batches again and again; null trains on all.
        select: which training rows are shown, by their loss in an earlier run.
        prefetch: batches prepared in the background; 0 prepares each on demand.
        baselines: fit methods without a neural network on the same rows, for the report.
    """

    valid_fraction: Annotated[float, Gt(0), Lt(1)]
    folds: Annotated[int, Ge(2), Le(400)] | None
    fold: Count
    seq_len: Annotated[int, Ge(8), Le(8192)] | None
    batch_size: Size | None
    batching: FixedBatchSize | TokenBudget
    eval_batch_size: Size | None
    tokenizer: BPETokenizerTrainer | CharTokenizerTrainer
    overfit_batches: Size | None
    select: ExampleSelection
    prefetch: Annotated[int, Ge(0), Le(1024)]
    baselines: bool


class LabelledOptions(BatchOptions):
    """Says which rows are read, and what a label is.

    Args:
        source: a file, folder or glob of .csv, .tsv, .jsonl (each also .gz or .zst) or .parquet, a Hugging Face data
            set, or sklearn:NAME; or a function of yours that returns a DataFrame, dicts, columns or a data set
            (data.source={_target_: my_rows.read}).
        valid_source: rows to validate on; null holds out some of `source`.
        test_source: rows that are evaluated once, after training; null for none.
        task: single (one class), multi_label (any number of labels) or regression (a number); auto decides by the
            labels of `source`: a number with a fraction, or more than 50 different ones, make it a regression.
        label_delimiter: what stands between several labels of a row; null for JSON lists.
        positive_class: the one of two classes that precision, recall and F1 are about; null is the second one.
        group_column: rows of `source` of equal value in it stay on one side of the split.
        time_column: validates on the latest rows by this column, numbers or ISO dates.
        on_overlap: what to do about equal rows in two splits; drop leaves the training row out.
        on_error: strict ends the run at a malformed row or a missing label; skip leaves such rows out.
        max_left_out: the fraction of each source that on_error=skip may leave out.
        reading: how files are read.
    """

    source: str | object
    valid_source: str | object | None
    test_source: str | object | None
    task: Literal["auto", "single", "multi_label", "regression"]
    label_delimiter: Annotated[str, MinLen(1), MaxLen(8)] | None
    positive_class: str | int | float | None
    group_column: str | None
    time_column: str | None
    on_overlap: Literal["warn", "drop", "error"]
    on_error: OnError
    max_left_out: Annotated[float, Ge(0), Lt(1)]
    reading: Reading


class RowOptions(LabelledOptions):
    """The options of labelled rows and of their label column.

    Args:
        target: its name.
        kind: its type; None infers it.
    """

    target: str
    kind: Kind | None


def check_split(options: RowOptions) -> None:
    """Raises ConfigError for keys of the split that do not go together."""
    folds = options["folds"]
    time_column = options["time_column"]
    if options["fold"] >= (folds or 1):
        raise ConfigError(
            f"data.fold={options['fold']}: expected less than data.folds={shown(folds)}"
        )
    if [options["valid_source"], time_column, folds].count(None) < 2:
        keys = "data.valid_source, data.time_column, data.folds"
        raise ConfigError(f"expected at most one of {keys}")
    if time_column is not None and options["group_column"] is not None:
        raise ConfigError("expected at most one of data.time_column, data.group_column")
