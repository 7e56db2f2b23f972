"""Baselines on the columns of a table: a linear model and gradient boosting, both from scikit-learn."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from mlxlab.data.batch import Task
from mlxlab.data.dataset import Baseline, Table
from mlxlab.data.labelled import baselines
from mlxlab.data.labelled.baselines import Estimator, Predict
from mlxlab.data.labelled.renderer import MISSING
from mlxlab.data.labelled.types import ColumnType, TypedColumn, amount, read_column, spell

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 100_000  # that are fitted
MAX_CELLS = 20_000_000  # rows that are fitted x columns
MAX_CATEGORIES = 200  # of a column; the rarest ones count as one
LARGEST = 1e100  # numbers are clipped to it: their squares are finite
AMOUNTS = ("number", "integer", "boolean", "datetime")


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
        types: of the columns; times are numbers. Texts are not read: they say nothing about other rows.
    """
    train, valid, test = split
    constant = baselines.constant_baseline(train_targets, len(valid), len(test), task)
    numbers = [name for name, each in types.items() if each.kind in AMOUNTS]
    categories = [name for name, each in types.items() if each.kind == "category"]
    linear = baselines.linear_name(task)
    if not numbers and not categories:
        baselines.log(f"{linear}, gradient_boosting", "skipped, there are only columns of texts")
        return [constant]

    def features(rows: np.ndarray) -> "pd.DataFrame":
        return _frame(cells(rows), types)

    def new_linear_model() -> Estimator:
        return _linear_model(numbers, categories, task)

    def new_boosted_trees() -> Estimator:
        return _boosted_trees(numbers, categories, task)

    models: dict[str, Predict] = {}
    max_rows = min(MAX_ROWS, MAX_CELLS // len(types))
    for name, max_outputs, new_model in (
        (linear, baselines.MAX_OUTPUTS, new_linear_model),
        ("gradient_boosting", baselines.MAX_TREE_OUTPUTS, new_boosted_trees),
    ):
        rows = baselines.sample_rows(name, train_targets, task, max_rows, max_outputs)
        if rows is not None:
            with baselines.fitting(name):
                table = features(train[rows])
                models[name] = baselines.fit(new_model, table, train_targets[rows], task)
    if not models:
        return [constant]
    return [constant, *baselines.predict(models, features, valid, test)]


def _frame(table: Table, types: Mapping[str, ColumnType]) -> "pd.DataFrame":
    import pandas as pd

    columns: dict[str, np.ndarray] = {}
    for name, column_type in types.items():
        column = read_column(name, pa.array(table[name], pa.string()), column_type)
        if column_type.kind in AMOUNTS:
            columns[name] = _amounts(column)
        elif column_type.kind == "category":
            words = [*map(spell, column.values), MISSING]
            columns[name] = np.array(words, object)[column.codes]
    return pd.DataFrame(columns)


def _amounts(column: TypedColumn) -> np.ndarray:
    """(N,) numbers, NaN where one is missing."""
    amounts = [amount(value) for value in column.values]
    return np.clip(np.array([*amounts, np.nan]), -LARGEST, LARGEST)[column.codes]


def _linear_model(numbers: list[str], categories: list[str], task: Task) -> Estimator:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    # A gap becomes the mean, with a column that says that it was one.
    imputer = SimpleImputer(add_indicator=True, keep_empty_features=True)
    one_hot = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=MAX_CATEGORIES)
    features = make_column_transformer(
        (make_pipeline(imputer, StandardScaler()), numbers), (one_hot, categories)
    )
    return make_pipeline(features, baselines.new_linear_model(task))


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
