"""Baselines on the columns of a table: a linear model and gradient boosting, both from scikit-learn."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.dataset import Table
from mlxlab.data.labelled import baselines
from mlxlab.data.labelled.baselines import Estimator, FittedModels, Predict
from mlxlab.data.labelled.renderer import MISSING
from mlxlab.data.labelled.types import ColumnType, read_table, spell

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 100_000  # rows that are fitted
MAX_CELLS = 20_000_000  # rows that are fitted x columns
MAX_CATEGORIES = 200  # categories of a column; the rarest ones count as one
LARGEST = 1e100  # numbers are clipped to it: their squares are finite
AMOUNTS = ("number", "integer", "boolean", "datetime")

NewModel = Callable[
    [list[str], list[str], Task], Estimator
]  # takes the columns of numbers and of categories


def fit_table_models(
    read: Callable[[np.ndarray], Table],
    targets: np.ndarray,
    types: Mapping[str, ColumnType],
    task: Task,
) -> list[FittedModels]:
    """Logistic (`Ridge` for numbers) regression and gradient boosting.

    Args:
        read: the training rows of these numbers, from 0.
        targets: of all training rows, as in a `Batch`.
        types: of the columns; times are numbers. Texts are not read: they say nothing about other rows.
    """
    numbers = [name for name, each in types.items() if each.kind in AMOUNTS]
    categories = [name for name, each in types.items() if each.kind == "category"]
    linear = baselines.linear_name(task)
    if not numbers and not categories:
        baselines.log(f"{linear}, gradient_boosting", "skipped, there are only columns of texts")
        return []

    def fit(name: str, new_model: NewModel, max_outputs: int) -> None:
        rows = baselines.sample_rows(name, targets, task, max_rows, max_outputs)
        if rows is not None:
            create = partial(new_model, numbers, categories, task)
            with baselines.fitting(name):
                features = _frame(types, read(rows))
                models[name] = baselines.fit(create, features, targets[rows], task)

    models: dict[str, Predict] = {}
    max_rows = min(MAX_ROWS, MAX_CELLS // len(types))
    fit(linear, _linear_model, baselines.MAX_OUTPUTS)
    fit("gradient_boosting", _boosted_trees, baselines.MAX_TREE_OUTPUTS)
    return [FittedModels(partial(_frame, types), models)]


def _frame(types: Mapping[str, ColumnType], table: Table) -> "pd.DataFrame":
    import pandas as pd

    columns: dict[str, np.ndarray] = {}
    for name, column in read_table(table, types).items():
        if column.type.kind in AMOUNTS:
            columns[name] = np.clip(column.amounts(), -LARGEST, LARGEST)
        elif column.type.kind == "category":
            words = [*map(spell, column.values), MISSING]
            columns[name] = np.array(words, object)[column.codes]
    return pd.DataFrame(columns)


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
    """Gradient boosting with 100 trees for each class or label."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    codes = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=MAX_CATEGORIES
    )
    features = make_column_transformer(("passthrough", numbers), (codes, categories))
    new_model = HistGradientBoostingClassifier
    if task.kind == "regression":
        new_model = HistGradientBoostingRegressor
    is_category = [False] * len(numbers) + [True] * len(categories)
    # Early stopping would hold out rows, which fails with a class of one row.
    trees = new_model(
        categorical_features=is_category, early_stopping=False, random_state=baselines.SEED
    )
    return make_pipeline(features, trees)
