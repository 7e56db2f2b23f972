"""Linear models of the features of rows, fitted by scikit-learn, as a matrix and a bias."""

from typing import NamedTuple

import numpy as np

from mlxlab.data.batch import TaskKind

MAX_ROWS = 20_000  # that it is fitted on
MAX_STEPS = 300
RIDGE = np.logspace(-2, 3, 11)  # of which generalised cross-validation takes one
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
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(features))[:MAX_ROWS]
    features = features[rows].astype(np.float64)
    targets = targets[rows]
    if kind == "regression":
        from sklearn.linear_model import RidgeCV

        ridge = RidgeCV(RIDGE).fit(features, targets)
        return LinearModel(ridge.coef_[:, None], np.array([ridge.intercept_]))
    if kind == "multi_label":
        models = [_fit_logistic(features, column.astype(int), 2) for column in targets.T]
        weights = [each.weight[:, 1] - each.weight[:, 0] for each in models]
        biases = [each.bias[1] - each.bias[0] for each in models]
        return LinearModel(np.stack(weights, axis=1), np.array(biases))
    return _fit_logistic(features, targets, outputs)


def _fit_logistic(features: np.ndarray, classes: np.ndarray, outputs: int) -> LinearModel:
    from sklearn.linear_model import LogisticRegression

    weight = np.zeros((features.shape[1], outputs))
    bias = np.full(outputs, UNKNOWN)
    present = np.unique(classes)
    if len(present) == 1:
        bias[present] = 0
        return LinearModel(weight, bias)
    model = LogisticRegression(max_iter=MAX_STEPS).fit(features, classes)
    if len(present) == 2:
        weight[:, present] = np.stack([-model.coef_[0], model.coef_[0]], axis=1) / 2
        bias[present] = np.array([-1, 1]) * model.intercept_[0] / 2
    else:
        weight[:, present] = model.coef_.T
        bias[present] = model.intercept_
    return LinearModel(weight, bias)
