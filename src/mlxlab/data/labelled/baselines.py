"""Baselines without a neural network, from scikit-learn: what a model has to beat on the same rows.

Targets are those of a `Batch`: classes (N,), labels (N, L) of 0 and 1, or standardised numbers (N,). Large data is
sampled, so that a fit takes minutes at most; a limit that is reached is logged.
"""

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.dataset import Baseline, Table

MAX_OUTPUTS = 1_000  # classes or labels
MAX_TREE_OUTPUTS = 100  # classes or labels; each has trees of its own
MAX_TARGETS = 2_000_000  # rows that are fitted x outputs
SEED = 0

logger = logging.getLogger(__name__)

Matrix = Any  # N rows of features: dense or sparse, or a data frame
Estimator = Any  # one of scikit-learn, which has no types
Predict = Callable[[Matrix], np.ndarray]  # -> (N, C), (N, L) or (N,), as in `Baseline`


@dataclass(frozen=True)
class FittedModels:
    """Fitted models by name, all of which read the same features of rows."""

    features: Callable[[Any], Matrix]  # reads a `Table`, or texts
    models: Mapping[str, Predict]


def constant_baseline(train_targets: np.ndarray, task: Task) -> FittedModels:
    """Predicts the same for every row: frequencies of the classes or labels, or the mean (`mean`)."""
    value = train_targets.mean(axis=0, dtype=np.float64)
    if task.kind == "classification":
        value = np.bincount(train_targets, minlength=task.num_classes) / len(train_targets)
    value = to_data_units(value, task)
    name = "mean" if task.kind == "regression" else "majority"

    def repeat(count: int) -> np.ndarray:
        return np.broadcast_to(value, (count, *value.shape))

    return FittedModels(count_rows, {name: repeat})


def count_rows(table: Table) -> int:
    return len(next(iter(table.values())))


def linear_name(task: Task) -> str:
    return "ridge_regression" if task.kind == "regression" else "logistic_regression"


def new_linear_model(task: Task, strength: float = 1.0, tolerance: float = 1e-6) -> Estimator:
    """`strength` is `C` of logistic regression and 1 / `alpha` of ridge regression: the inverse of the penalty."""
    from sklearn.linear_model import LogisticRegression, Ridge

    if task.kind == "regression":
        return Ridge(alpha=1 / strength, random_state=SEED)
    return LogisticRegression(C=strength, max_iter=1000, tol=tolerance, random_state=SEED)


def sample_rows(
    name: str, targets: np.ndarray, task: Task, max_rows: int, max_outputs: int
) -> np.ndarray | None:
    """Indices of the training rows to fit, ascending; None, with a line in the log, where a fit makes no sense."""
    if task.num_classes > max_outputs:
        log(name, f"skipped, {task.num_classes} outputs are more than {max_outputs}")
        return None
    if task.kind == "classification" and len(np.unique(targets)) < 2:
        log(name, "skipped, the training rows are all of one class")
        return None
    limit = min(max_rows, MAX_TARGETS // task.num_classes)
    if len(targets) <= limit:
        return np.arange(len(targets))
    log(name, f"fitted on {limit:,} of {len(targets):,} training rows, drawn at random")
    return np.sort(np.random.default_rng(SEED).choice(len(targets), limit, replace=False))


def fit(
    new_model: Callable[[], Estimator], features: Matrix, targets: np.ndarray, task: Task
) -> Predict:
    """Fits a model to features of N rows; one for each label if several may hold."""
    if task.kind == "regression":
        regressor = new_model().fit(features, targets)
        return lambda rows: to_data_units(regressor.predict(rows), task)
    if task.kind == "classification":
        return fit_classifier(new_model(), features, targets, task.num_classes)
    columns = targets.T.astype(np.int64)
    labels = [fit_classifier(new_model(), features, column, 2) for column in columns]
    return lambda rows: np.stack([predict(rows)[:, 1] for predict in labels], axis=1)


def fit_classifier(
    model: Estimator, features: Matrix, classes: np.ndarray, num_classes: int
) -> Predict:
    """Probabilities of all classes, 0 for those without a training row."""
    from sklearn.dummy import DummyClassifier

    if len(np.unique(classes)) == 1:
        model = DummyClassifier()
    model.fit(features, classes)

    def predict(rows: Matrix) -> np.ndarray:
        probabilities = np.zeros((rows.shape[0], num_classes))
        probabilities[:, model.classes_] = _probabilities(model, rows)
        return probabilities

    return predict


def _probabilities(model: Estimator, rows: Matrix) -> np.ndarray:
    """Probabilities of the classes that have a training row."""
    from scipy.special import softmax

    if hasattr(model, "predict_proba"):
        return model.predict_proba(rows)
    margins = model.decision_function(rows)  # This is a support vector machine.
    if margins.ndim == 1:
        margins = np.stack([-margins, margins], axis=1)
    return softmax(margins, axis=1)


def predict(
    fitted: Sequence[FittedModels], blocks: Iterable[object], num_valid: int
) -> list[Baseline]:
    """The predictions of all models.

    Args:
        blocks: rows as the models read them, a few thousand at a time.
        num_valid: the first rows, which are for validation; the others are test rows.
    """
    groups = [group for group in fitted if group.models]
    parts: dict[str, list[np.ndarray]] = {}
    for block in blocks:
        for group in groups:
            with fitting(", ".join(group.models)):
                features = group.features(block)
                for name, model in group.models.items():
                    parts.setdefault(name, []).append(model(features))
    baselines: list[Baseline] = []
    for name, predictions in parts.items():
        valid, test = np.split(np.concatenate(predictions), [num_valid])
        baselines.append(Baseline(name, valid, test))
    return baselines


def to_data_units(standardised: np.ndarray, task: Task) -> np.ndarray:
    if task.kind != "regression":
        return standardised
    return standardised * task.target_deviation + task.target_mean


def log(name: str, what: str) -> None:
    logger.info(f"baseline {name}: {what}")


@contextmanager
def fitting(name: str) -> Iterator[None]:
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
