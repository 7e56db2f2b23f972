"""Models from scikit-learn, one for all outputs or one for each, and the limits of their fits.

Targets are those of a `Batch`: classes (N,), labels (N, L) of 0 and 1, or standardised numbers (N,). Large data is
sampled, so that a fit takes minutes at most; a limit that is reached is logged.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlxlab.data.batch import Task, TaskKind
from mlxlab.data.dataset import Table

MAX_OUTPUTS = 1_000  # classes or labels
MAX_TARGETS = 2_000_000  # rows that are fitted x outputs
SEED = 0

logger = logging.getLogger(__name__)

Matrix = Any  # N rows of features: dense or sparse, or a data frame
Estimator = Any  # one of scikit-learn, which has no types


@dataclass(frozen=True)
class FittedModels:
    """Fitted models by name, which read the same features of rows.

    Args:
        models: features -> predictions, as in `Baseline`.
        num_variants: rows of features of a row, over which its predictions are averaged.
    """

    features: Callable[[Table], Matrix]
    models: Mapping[str, Callable[[Matrix], np.ndarray]]
    num_variants: int = 1

    def predict(self, table: Table) -> dict[str, np.ndarray]:
        if not self.models:
            return {}
        features = self.features(table)
        predictions = {}
        for name, model in self.models.items():
            values = model(features)
            by_row = values.reshape(-1, self.num_variants, *values.shape[1:])
            predictions[name] = by_row.mean(axis=1)
        return predictions


@dataclass(frozen=True)
class Model:
    """Fitted estimators, one of all classes or of the numbers, or one for each label."""

    estimators: Sequence[Estimator]
    task: Task

    def __call__(self, features: Matrix) -> np.ndarray:
        """Predictions (N, C), (N, L) or (N,), as in `Baseline`; 0 for a class without a training row."""
        first = self.estimators[0]
        if self.task.kind == "regression":
            return to_data_units(first.predict(features), self.task)
        if self.task.kind == "classification":
            return _probabilities(first, features, self.task.num_classes)
        columns = [_probabilities(each, features, 2)[:, 1] for each in self.estimators]
        return np.stack(columns, axis=1)


def _probabilities(estimator: Estimator, features: Matrix, num_classes: int) -> np.ndarray:
    from scipy.special import softmax

    probabilities = np.zeros((features.shape[0], num_classes))
    if hasattr(estimator, "predict_proba"):
        probabilities[:, estimator.classes_] = estimator.predict_proba(features)
        return probabilities
    margins = estimator.decision_function(features)  # This is a support vector machine.
    if margins.ndim == 1:
        margins = np.stack([-margins, margins], axis=1)
    probabilities[:, estimator.classes_] = softmax(margins, axis=1)
    return probabilities


def fit_estimators(
    new_estimator: Callable[[], Estimator], features: Matrix, targets: np.ndarray, kind: TaskKind
) -> list[Estimator]:
    """Fits an estimator to features of N rows; one for each label if several may hold."""
    from sklearn.dummy import DummyClassifier

    if kind == "regression":
        return [new_estimator().fit(features, targets)]
    if kind == "multi_label":
        targets = targets.astype(np.int64)
    estimators = []
    for column in np.atleast_2d(targets.T):
        estimator = DummyClassifier()
        if len(np.unique(column)) > 1:
            estimator = new_estimator()
        estimators.append(estimator.fit(features, column))
    return estimators


def linear_name(task: Task) -> str:
    if task.kind == "regression":
        return "ridge_regression"
    return "logistic_regression"


def new_linear_model(task: Task, strength: float = 1.0, tolerance: float = 1e-6) -> Estimator:
    """`strength` is `C` of logistic regression and 1 / `alpha` of ridge regression: the inverse of the penalty."""
    from sklearn.linear_model import LogisticRegression, Ridge

    if task.kind == "regression":
        return Ridge(alpha=1 / strength, random_state=SEED)
    return LogisticRegression(C=strength, max_iter=1000, tol=tolerance, random_state=SEED)


def new_boosting(kind: TaskKind, **options: object) -> Estimator:
    """Gradient boosting. Early stopping would hold out rows, which fails with a class of one row."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    new_model = HistGradientBoostingClassifier
    if kind == "regression":
        new_model = HistGradientBoostingRegressor
    return new_model(early_stopping=False, random_state=SEED, **options)


def sample_rows(name: str, targets: np.ndarray, task: Task, max_rows: int) -> np.ndarray | None:
    """Indices of the training rows to fit, ascending; None, with a line in the log, where a fit makes no sense."""
    if task.num_classes > MAX_OUTPUTS:
        log(name, f"skipped, {task.num_classes} outputs are more than {MAX_OUTPUTS}")
        return None
    if task.kind == "classification" and len(np.unique(targets)) < 2:
        log(name, "skipped, the training rows are all of one class")
        return None
    limit = min(max_rows, MAX_TARGETS // task.num_classes)
    if len(targets) <= limit:
        return np.arange(len(targets))
    log(name, f"fitted on {limit:,} of {len(targets):,} training rows, drawn at random")
    return np.sort(np.random.default_rng(SEED).choice(len(targets), limit, replace=False))


def to_data_units(standardised: np.ndarray, task: Task) -> np.ndarray:
    if task.kind != "regression":
        return standardised
    return standardised * task.target_deviation + task.target_mean


def log(name: str, what: str) -> None:
    logger.info(f"baseline {name}: {what}")


@contextmanager
def limit_scikit(name: str) -> Iterator[None]:
    """Around the use of scikit-learn: logs in one line that a fit did not converge, hides its other warnings.

    One thread: on a busy machine the threads of gradient boosting wait for each other, up to twenty times as long as
    the fit takes.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        log(name, "its fit stopped before it converged")
