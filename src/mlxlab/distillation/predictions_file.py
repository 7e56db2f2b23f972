"""A file of predictions as a teacher: of any program, for the rows of `data.source`, as `mlxlab predict` writes them."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from mlxlab.baselines.out_of_fold import OutOfFold
from mlxlab.data.batch import Task
from mlxlab.data.dataset import DataModule
from mlxlab.data.loaders.loader import EvalLoader
from mlxlab.errors import DataError, NotAllowedError

if TYPE_CHECKING:
    from mlxlab.data.labelled.row_split import RowSplit
    from mlxlab.data.labelled.rows import Rows

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
ROW = "row"  # the column of the numbers of the rows, from 1
VALUE = "value"
PROBABILITY = "probability_"


@runtime_checkable
class NumbersRows(Protocol):
    """A data set of rows of files."""

    @property
    def rows(self) -> "Rows": ...

    @property
    def split(self) -> "RowSplit": ...

    @property
    def training_rows(self) -> EvalLoader: ...


def is_predictions(path: Path) -> bool:
    """Whether a teacher is a file of predictions."""
    return path.suffix in SUFFIXES and path.is_file()


def load_predictions(path: Path, data: DataModule, cache: Path) -> OutOfFold:
    """What the file says of the training rows.

    Its columns are `probability_<label>` of each class or label, or `value` of a regression; further ones are not
    read. It has a row for each row of `data.source`, in the same order, or in a column `row` their numbers from 1.

    Raises:
        NotAllowedError: the data are no rows.
        DataError: a column or the row of a training row is missing, or a cell is no probability.
    """
    from mlxlab.data.labelled.rows import Rows, open_rows
    from mlxlab.data.sources.open import Reading

    if not isinstance(data, NumbersRows):
        raise NotAllowedError(f"trainer.teachers: {path}: expected data of labelled rows")
    names = [VALUE]
    if data.task.kind != "regression":
        names = [f"{PROBABILITY}{label}" for label in data.task.labels]
    predicted = Rows([open_rows(str(path), Reading(), cache)])
    missing = [name for name in names if name not in predicted.columns]
    if missing:
        raise DataError(
            f"{path}: no column {missing[0]!r}; got {', '.join(predicted.columns)[:200]}"
        )
    outputs = np.stack([_numbers(predicted, name) for name in names], axis=1)
    _check(outputs, data.task, path)
    if data.task.kind == "regression":
        outputs = (outputs - data.task.target_mean) / data.task.target_deviation

    rows = np.arange(len(predicted))
    if ROW in predicted.columns:
        rows = _numbers(predicted, ROW) - 1
    count = int(data.rows.starts[1])
    if ROW not in predicted.columns and len(rows) != count:
        raise DataError(
            f"{path}: expected the {count:,} rows of {data.rows.name}, got {len(rows):,}"
        )
    order = np.argsort(rows, kind="stable")
    found = np.searchsorted(rows[order], data.split.train).clip(max=len(rows) - 1)
    is_found = rows[order][found] == data.split.train
    if not is_found.all():
        number = int(data.split.train[np.argmin(is_found)]) + 1
        raise DataError(f"{path}: no prediction of row {number}, which is trained on")
    batches = list(data.training_rows)
    ids = np.concatenate([batch.example_ids for batch in batches])
    targets = np.concatenate([batch.targets for batch in batches])
    return OutOfFold(ids, targets, outputs[order[found]].astype(np.float32))


def _numbers(rows: "Rows", name: str) -> np.ndarray:
    """(N,) the cells of a column; DataError with the place of one that is missing or no number."""
    from mlxlab.data.labelled.types import ColumnType, read_column

    column = read_column(name, rows.column(name), ColumnType("number"), rows.location)
    if (column.codes < 0).any():
        place = rows.location(int(np.argmin(column.codes)))
        raise DataError(f"{place}: column {name!r}: expected a number, got none")
    return column.amounts()


def _check(outputs: np.ndarray, task: Task, path: Path) -> None:
    """Raises DataError unless these are probabilities, which sum to 1 where one class holds."""
    if task.kind == "regression":
        return
    if outputs.min() < 0 or outputs.max() > 1:
        raise DataError(f"{path}: expected probabilities from 0 to 1")
    if task.kind == "classification" and np.abs(outputs.sum(axis=1) - 1).max() > 1e-3:
        raise DataError(f"{path}: expected probabilities that sum to 1 in each row")
