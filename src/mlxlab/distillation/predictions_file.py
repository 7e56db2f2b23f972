"""A file of predictions as a teacher: of any program, for the rows of `data.source`, as `mlxlab predict` writes them."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.dataset import DataModule
from mlxlab.errors import DataError, NotAllowedError
from mlxlab.models.baselines.mixture import OutOfFold

if TYPE_CHECKING:
    from mlxlab.data.labelled.rows import Rows

ROW = "row"  # the column of the numbers of the rows, from 1
VALUE = "value"
PROBABILITY = "probability_"
MAX_ERROR = 1e-3  # error in the sum of the probabilities of a row
MAX_DEVIATIONS = 1e6  # standard deviations from the mean of the training rows


def load_predictions(path: Path, data: DataModule, cache: Path) -> OutOfFold:
    """What the file says of the training rows.

    Its columns are `probability_<label>` of each class or label, or `value` of a regression; further ones are not
    read. It has a row for each row of `data.source`, in the same order, or in a column `row` their numbers from 1.

    Raises:
        NotAllowedError: the data are no rows, or some of them are malformed and so have no number.
        InputNotFoundError: no such file.
        DataError: a column or the row of a training row is missing, or a cell is no probability.
    """
    import pandas as pd

    from mlxlab.data.labelled.dataset import LabelledExamples
    from mlxlab.data.labelled.rows import Rows, open_rows
    from mlxlab.data.sources.open import Reading, open_source

    if not isinstance(data, LabelledExamples) or data.rows.parts[0].num_malformed:
        expected = "expected labelled rows as data, none of them malformed"
        raise NotAllowedError(f"trainer.teachers: {path}: {expected}")
    names = [VALUE]
    if data.task.kind != "regression":
        names = [f"{PROBABILITY}{label}" for label in data.task.labels]
    has_numbers = ROW in open_source(str(path), Reading()).columns()
    columns = [*names, ROW] if has_numbers else names
    predicted = Rows([open_rows(str(path), Reading(), cache, columns=columns)])
    outputs = np.stack([_numbers(predicted, name) for name in columns], axis=1)
    rows = np.arange(len(predicted))
    if has_numbers:
        rows = outputs[:, -1] - 1
        outputs = outputs[:, :-1]
        _require((rows >= 0) & (rows % 1 == 0), predicted, "the number of a row, from 1")
    elif len(rows) != data.rows.starts[1]:
        expected = f"expected the {data.rows.starts[1]:,} rows of {data.rows.name}"
        raise DataError(f"{path}: {expected}, got {len(rows):,}")

    index = pd.Index(rows.astype(np.int64))
    _require(~index.duplicated(), predicted, "each number of a row once")
    places = index.get_indexer(data.split.train)  # -1 where there is none
    if (places < 0).any():
        number = int(data.split.train[places.argmin()]) + 1
        raise DataError(f"{path}: no prediction of row {number}, which is trained on")
    ids = np.concatenate([batch.example_ids for batch in data.training_rows])
    scaled = _scaled(outputs, data.task, predicted)
    said = scaled[places].astype(np.float32)
    return OutOfFold(ids, data.training_targets, said)


def _numbers(rows: "Rows", name: str) -> np.ndarray:
    """(N,) the cells of a column; DataError with the place of one that is missing or no number."""
    from mlxlab.data.labelled.types import ColumnType, read_column

    column = read_column(name, rows.column(name), ColumnType("number"), rows.location)
    _require(column.codes >= 0, rows, f"a number in column {name!r}, got none")
    return column.amounts()


def _scaled(outputs: np.ndarray, task: Task, rows: "Rows") -> np.ndarray:
    """Probabilities as they are, numbers as the targets are; DataError with the place of one that cannot be."""
    if task.kind == "regression":
        scaled = (outputs - task.target_mean) / task.target_deviation
        is_near = np.abs(scaled[:, 0]) <= MAX_DEVIATIONS
        _require(is_near, rows, "a number near those of the training rows")
        return scaled
    is_valid = (outputs.min(axis=1) >= 0) & (outputs.max(axis=1) <= 1)
    _require(is_valid, rows, "probabilities from 0 to 1")
    if task.kind == "classification":
        is_whole = np.abs(outputs.sum(axis=1) - 1) <= MAX_ERROR
        _require(is_whole, rows, "probabilities that sum to 1")
    return outputs


def _require(is_valid: np.ndarray, rows: "Rows", expected: str) -> None:
    """Raises DataError with the place of the first row for which this is False."""
    if not is_valid.all():
        raise DataError(f"{rows.location(int(np.argmin(is_valid)))}: expected {expected}")
