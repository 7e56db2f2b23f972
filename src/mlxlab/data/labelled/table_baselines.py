"""Baselines on the raw columns of a table: a linear model and gradient boosting, both from scikit-learn."""

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.dataset import Baseline, Table
from mlxlab.data.labelled import baselines
from mlxlab.data.labelled.baselines import Estimator
from mlxlab.data.labelled.renderer import AMOUNTS, MISSING
from mlxlab.data.labelled.types import ColumnType, read_number

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 100_000  # that are fitted
MAX_CELLS = 20_000_000  # rows that are fitted x columns
MAX_CATEGORIES = 200  # of a column; the rarest ones count as one
LARGEST = 1e100  # numbers are clipped to it: their squares are finite

logger = logging.getLogger(__name__)


def table_baselines(
    cells: Callable[[np.ndarray], Table],
    split: Sequence[np.ndarray],
    train_targets: np.ndarray,
    types: Mapping[str, ColumnType],
    task: Task,
) -> list[Baseline]:
    """The constant, logistic (`Ridge` for numbers) regression, and gradient boosting.

    Args:
        cells: the columns that the model reads, of rows by number.
        split: numbers of the training, validation and test rows.
        train_targets: as in a `Batch`.
        types: of the columns. Texts are not read: they say nothing about other rows.
    """
    train, valid, test = split
    constant = baselines.constant_baseline(train_targets, len(valid), len(test), task)
    columns = list(cells(train[:1]))
    numbers = [name for name in columns if types[name].kind in AMOUNTS]
    categories = [name for name in columns if types[name].kind not in (*AMOUNTS, "text")]
    max_rows = min(MAX_ROWS, MAX_CELLS // len(columns))
    models: dict[str, baselines.Predict] = {}
    for name, max_outputs, build in (
        (baselines.linear_name(task), baselines.MAX_OUTPUTS, _linear_model),
        ("gradient_boosting", baselines.MAX_TREE_OUTPUTS, _boosted_trees),
    ):
        rows = baselines.sample_rows(name, train_targets, task, max_rows, max_outputs)
        if rows is None:
            continue
        with baselines.fitting(name):
            table = cells(train[rows])
            if not numbers and not categories:
                logger.info(
                    f"baseline {name}: skipped, there are only columns of texts that hardly repeat"
                )
                continue
            new_model = partial(build, numbers, categories, task)
            models[name] = baselines.fit(
                new_model, _frame(table, numbers), train_targets[rows], task
            )
    return [
        constant,
        *baselines.predict(models, lambda rows: _frame(cells(rows), numbers), (valid, test), task),
    ]


def _frame(table: Table, numeric: Collection[str]) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(
        {
            name: _numbers(cells) if name in numeric else _texts(cells)
            for name, cells in table.items()
        }
    )


def _numbers(cells: Sequence[str | None]) -> np.ndarray:
    values = [read_number(cell) if cell and cell.strip() else math.nan for cell in cells]
    return np.clip(np.array(values), -LARGEST, LARGEST)


def _texts(cells: Sequence[str | None]) -> np.ndarray:
    return np.array([MISSING if cell is None else cell for cell in cells], object)


def _linear_model(numbers: list[str], categories: list[str], task: Task) -> Estimator:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    imputer = SimpleImputer(
        add_indicator=True, keep_empty_features=True
    )  # the mean, and that it was missing
    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=MAX_CATEGORIES)
    features = make_column_transformer(
        (make_pipeline(imputer, StandardScaler()), numbers), (one_hot, categories)
    )
    return make_pipeline(features, baselines.new_linear_model(task)())


def _boosted_trees(numbers: list[str], categories: list[str], task: Task) -> Estimator:
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    codes = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=MAX_CATEGORIES
    )
    features = make_column_transformer(("passthrough", numbers), (codes, categories))
    is_category = [False] * len(numbers) + [True] * len(categories)
    return make_pipeline(features, baselines.new_boosted_trees(task, is_category))
