"""Models of the features of rows, fitted by scikit-learn, as arrays: a linear one, and gradient boosting of small trees.

Shapes: N rows, R features, O outputs, T trees of each output, S nodes of a tree.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from mlxlab.data.batch import Task, TaskKind
from mlxlab.models.baselines.estimators import SEED, Estimator, Model, fit_estimators, new_boosting
from mlxlab.models.tabular import LEAVES, NODES, TREES

MAX_LINEAR_ROWS = 20_000  # more are not learned from
MAX_STEPS = 300
RIDGE = np.logspace(-2, 3, 11)  # generalised cross-validation takes one of them
UNKNOWN = -30.0  # the bias of a class that no row has
LEARNING_RATE = 0.05
MIN_ROWS = 10  # a leaf has no fewer
MAX_BOOSTING_ROWS = 50_000  # more are not learned from


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
    rows = rng.permutation(len(features))[:MAX_LINEAR_ROWS]
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


class Trees(NamedTuple):
    """The trees of each output: in each node a row with at most `threshold` in `feature` goes left, others right.

    A leaf leads to itself. What its leaves are worth, and the bias of the output, add up to a logit or a number.
    """

    feature: np.ndarray  # (O, T, S)
    threshold: np.ndarray  # (O, T, S) float32
    left: np.ndarray  # (O, T, S)
    right: np.ndarray  # (O, T, S)
    value: np.ndarray  # (O, T, S)
    bias: np.ndarray  # (O,)


def fit_boosting(features: np.ndarray, targets: np.ndarray, kind: TaskKind, outputs: int) -> Model:
    """Gradient boosting with small steps.

    Args:
        features: (N, R).
        targets: as in a `Batch`.
    """
    create = partial(
        new_boosting,
        kind,
        learning_rate=LEARNING_RATE,
        max_iter=TREES,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=MIN_ROWS,
        l2_regularization=1.0,
    )
    rows = np.sort(np.random.default_rng(SEED).permutation(len(features))[:MAX_BOOSTING_ROWS])
    fitted = fit_estimators(create, features[rows], targets[rows], kind)
    return Model(fitted, Task(kind, outputs))


def trees_of(model: Model) -> Trees:
    """The arrays of fitted trees."""
    outputs = model.task.num_classes
    shape = (outputs, TREES, NODES)
    leaf = np.broadcast_to(np.arange(NODES), shape)
    bias = np.full(outputs, UNKNOWN)
    feature, threshold, value = np.zeros((3, *shape))
    trees = Trees(feature, threshold, leaf.copy(), leaf.copy(), value, bias)
    if model.task.kind == "classification":
        [estimator] = model.estimators
        present = estimator.classes_
        bias[present] = 0
        if len(present) == 2:
            present = present[1:]
        _fill(trees, present, estimator)
        return trees
    bias[:] = 0
    for output, estimator in enumerate(model.estimators):
        classes: Sequence[int] = getattr(estimator, "classes_", ())
        if len(classes) == 1:
            bias[output] = -UNKNOWN if classes[0] else UNKNOWN
        _fill(trees, [output], estimator)
    return trees


def _fill(trees: Trees, outputs: Sequence[int], estimator: Estimator) -> None:
    """Writes the trees of an estimator, one for each of these outputs in each round; a constant one has none."""
    # There is no public way to these trees. A test compares what comes of them with the predictions of the estimator.
    rounds = getattr(estimator, "_predictors", [])
    for number, predictors in enumerate(rounds):
        for output, predictor in zip(outputs, predictors, strict=True):
            nodes = predictor.nodes
            inner = np.flatnonzero(~nodes["is_leaf"].astype(bool))
            place = (output, number, inner)
            trees.feature[place] = nodes["feature_idx"][inner]
            trees.threshold[place] = _round_down(nodes["num_threshold"][inner])
            trees.left[place] = nodes["left"][inner]
            trees.right[place] = nodes["right"][inner]
            trees.value[output, number, : len(nodes)] = nodes["value"]
    if rounds:
        trees.bias[outputs] = np.ravel(estimator._baseline_prediction)


def _round_down(thresholds: np.ndarray) -> np.ndarray:
    """The greatest float32 up to each: the same features of float32 are at most it."""
    rounded = thresholds.astype(np.float32)
    is_greater = rounded > thresholds
    rounded[is_greater] = np.nextafter(rounded[is_greater], np.float32(-np.inf))
    return rounded
