"""Five methods of scikit-learn with the settings that a careful user would begin with, one setting for all tables."""

import warnings
from typing import Any

import numpy as np
import pandas as pd

from mlxlab.data.batch import TaskKind

SEED = 0
NEIGHBOURS = 10
TREES = 150
RIDGE = np.logspace(-2, 3, 11)
MAX_CATEGORIES = 250


def fit_peers(train: pd.DataFrame, targets: np.ndarray, kind: TaskKind) -> dict[str, Any]:
    """The fitted pipelines by name; targets are the numbers of classes, or numbers."""
    numbers = [name for name in train if pd.api.types.is_numeric_dtype(train[name])]
    categories = [name for name in train if name not in numbers]
    new_peers = _classifiers if kind == "classification" else _regressors
    peers = new_peers(numbers, categories)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for peer in peers.values():
            peer.fit(train, targets)
    return peers


def predict(peer: Any, rows: pd.DataFrame, num_classes: int) -> np.ndarray:
    """Probabilities (N, C), of a support vector machine 0 and 1; or numbers (N,)."""
    if not num_classes:
        return peer.predict(rows)
    classes = peer.classes_
    outputs = np.zeros((len(rows), num_classes))
    if hasattr(peer, "predict_proba"):
        outputs[:, classes] = peer.predict_proba(rows)
    else:
        outputs[np.arange(len(rows)), peer.predict(rows)] = 1
    return outputs


def _classifiers(numbers: list[str], categories: list[str]) -> dict[str, Any]:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC

    def pipeline(model: Any) -> Any:
        return make_pipeline(_scaled(numbers, categories), model)

    codes, is_category = _codes(numbers, categories)
    boosting = HistGradientBoostingClassifier(
        categorical_features=is_category, early_stopping=False, random_state=SEED
    )
    return {
        "linear": pipeline(LogisticRegression(max_iter=300)),
        "boosting": make_pipeline(codes, boosting),
        "forest": pipeline(RandomForestClassifier(TREES, random_state=SEED)),
        "svm": pipeline(SVC()),
        "neighbours": pipeline(KNeighborsClassifier(NEIGHBOURS, weights="distance")),
    }


def _regressors(numbers: list[str], categories: list[str]) -> dict[str, Any]:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    def pipeline(model: Any) -> Any:
        return make_pipeline(_scaled(numbers, categories), model)

    codes, is_category = _codes(numbers, categories)
    boosting = HistGradientBoostingRegressor(
        categorical_features=is_category, early_stopping=False, random_state=SEED
    )
    forest = RandomForestRegressor(TREES, max_features=0.33, random_state=SEED)
    return {
        "linear": pipeline(RidgeCV(RIDGE)),
        "boosting": make_pipeline(codes, boosting),
        "forest": pipeline(forest),
        "svm": TransformedTargetRegressor(pipeline(SVR()), transformer=StandardScaler()),
        "neighbours": pipeline(KNeighborsRegressor(NEIGHBOURS, weights="distance")),
    }


def _scaled(numbers: list[str], categories: list[str]) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    imputer = SimpleImputer(strategy="median", add_indicator=True)
    one_hot = OneHotEncoder(handle_unknown="ignore", min_frequency=2)
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(imputer, StandardScaler()), numbers),
            ("categories", one_hot, categories),
        ],
        sparse_threshold=0,
    )


def _codes(numbers: list[str], categories: list[str]) -> tuple[Any, list[bool]]:
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=MAX_CATEGORIES
    )
    transformer = ColumnTransformer(
        [("numbers", "passthrough", numbers), ("categories", encoder, categories)]
    )
    return transformer, [False] * len(numbers) + [True] * len(categories)
