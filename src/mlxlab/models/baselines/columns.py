"""Baselines on the columns of a table: a linear model and gradient boosting."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.dataset import LabelledRows, ReadColumns, Table
from mlxlab.models.baselines.estimators import (
    Estimator,
    FittedModels,
    Model,
    fit_estimators,
    limit_scikit,
    linear_name,
    log,
    new_boosting,
    new_linear_model,
    sample_rows,
)

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 100_000  # rows that are fitted
MAX_CELLS = 20_000_000  # rows that are fitted x columns
MAX_TREE_OUTPUTS = 100  # classes or labels; each has trees of its own
MAX_CATEGORIES = 200  # categories of a column; the rarest ones count as one
LARGEST = 1e100  # numbers are clipped to it: their squares are finite

NewModel = Callable[
    [list[str], list[str], Task], Estimator
]  # takes the columns of numbers and of categories


def fit_columns(data: LabelledRows, read: ReadColumns) -> FittedModels:
    """Logistic (`Ridge` for numbers) regression and gradient boosting; no models if nothing can be fitted."""
    task = data.task
    targets = data.training_targets
    new_models: dict[str, NewModel] = {linear_name(task): _linear_model}
    if task.num_classes <= MAX_TREE_OUTPUTS:
        new_models["gradient_boosting"] = _boosted_trees
    else:
        log("gradient_boosting", f"skipped, more than {MAX_TREE_OUTPUTS} outputs")
    names = ", ".join(new_models)
    models: dict[str, Model] = {}
    fitted = FittedModels(partial(_frame, read), models)

    max_rows = min(MAX_ROWS, MAX_CELLS // len(data.columns))
    rows = sample_rows(names, targets, task, max_rows)
    if rows is None:
        return fitted
    frame = fitted.features(data.cells(rows))
    is_number = frame.dtypes == np.float64
    numbers = list(frame.columns[is_number])
    categories = list(frame.columns[~is_number])
    if frame.empty:
        log(names, "skipped, there are only columns of texts")
        return fitted
    for name, new_model in new_models.items():
        create = partial(new_model, numbers, categories, task)
        with limit_scikit(name):
            estimators = fit_estimators(create, frame, targets[rows], task.kind)
        models[name] = Model(estimators, task)
    return fitted


def _frame(read: ReadColumns, table: Table) -> "pd.DataFrame":
    import pandas as pd

    columns = {}
    for name, column in read(table).items():
        if column.dtype == np.float64:
            column = np.clip(column, -LARGEST, LARGEST)
        columns[name] = column
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
    return make_pipeline(features, new_linear_model(task))


def _boosted_trees(numbers: list[str], categories: list[str], task: Task) -> Estimator:
    """Gradient boosting with 100 trees for each class or label."""
    from sklearn.compose import make_column_transformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    codes = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=MAX_CATEGORIES
    )
    features = make_column_transformer(("passthrough", numbers), (codes, categories))
    is_category = [False] * len(numbers) + [True] * len(categories)
    return make_pipeline(features, new_boosting(task.kind, categorical_features=is_category))
