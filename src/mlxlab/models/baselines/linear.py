"""Linear models of the features of rows, fitted by scikit-learn, as a matrix and a bias."""

from functools import partial
from typing import NamedTuple

import numpy as np

from mlxlab.data.batch import TaskKind
from mlxlab.models.baselines.estimators import Estimator, fit_estimators

MAX_ROWS = 20_000  # more are not learned from
MAX_STEPS = 300
RIDGE = np.logspace(-2, 3, 11)  # generalised cross-validation takes one of them
UNKNOWN = -30.0  # the bias of a class that no row has


class LinearModel(NamedTuple):
    """Features (N, R) -> logits of classes or labels, or numbers: X W + b, of shapes (R, O) and (O,)."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return features @ self.weight + self.bias


def fit_linear(
    features: np.ndarray, targets: np.ndarray, kind: TaskKind, outputs: int
) -> LinearModel:
    """Logistic regression of classes and labels, ridge regression of numbers.

    Args:
        targets: as in a `Batch`.
    """
    from sklearn.linear_model import LogisticRegression, RidgeCV

    rng = np.random.default_rng(0)
    rows = rng.permutation(len(features))[:MAX_ROWS]
    features = features[rows].astype(np.float64)
    new_model = partial(LogisticRegression, max_iter=MAX_STEPS)
    if kind == "regression":
        new_model = partial(RidgeCV, RIDGE)
    fitted = fit_estimators(new_model, features, targets[rows], kind)
    if kind == "regression":
        return LinearModel(fitted[0].coef_[:, None], np.array([fitted[0].intercept_]))
    if kind == "classification":
        return _logits(fitted[0], features.shape[1], outputs)
    models = [_logits(each, features.shape[1], 2) for each in fitted]
    weights = [each.weight[:, 1] - each.weight[:, 0] for each in models]
    biases = [each.bias[1] - each.bias[0] for each in models]
    return LinearModel(np.stack(weights, axis=1), np.array(biases))


def _logits(fitted: Estimator, num_features: int, outputs: int) -> LinearModel:
    """The logits of all classes; `fitted` knows those of the training rows."""
    weight = np.zeros((num_features, outputs))
    bias = np.full(outputs, UNKNOWN)
    present = fitted.classes_
    if len(present) == 1:
        bias[present] = 0
    elif len(present) == 2:
        weight[:, present] = np.stack([-fitted.coef_[0], fitted.coef_[0]], axis=1) / 2
        bias[present] = np.array([-1, 1]) * fitted.intercept_[0] / 2
    else:
        weight[:, present] = fitted.coef_.T
        bias[present] = fitted.intercept_
    return LinearModel(weight, bias)
