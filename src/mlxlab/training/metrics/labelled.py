"""The metrics of a labelled task by its kind, and those of labels and of numbers."""

from collections.abc import Sequence

import numpy as np

from mlxlab.data.batch import Task, TaskKind
from mlxlab.schema.metric_names import VALID
from mlxlab.training.metrics.classification import (
    SMALLEST,
    ClassCounts,
    classification_metrics,
    mean,
    mean_ranking,
)

# The metric in which a model is compared with its baselines, unless `main_metric` says otherwise.
MAIN_METRIC: dict[TaskKind, str] = {
    "classification": "accuracy",
    "multi_label": "f1_macro",
    "regression": "rmse",
}
# Probabilities from which labels hold (L,), or the positive one of two classes does (1,); a float for all labels.
Thresholds = np.ndarray | float


def main_metric(task: Task, objective: str) -> str:
    """The metric in which a model is compared with its baselines: of two classes F1 if it is the objective."""
    is_binary = task.kind == "classification" and task.num_classes == 2
    if is_binary and objective == f"{VALID}f1":
        return "f1"
    return MAIN_METRIC[task.kind]


def as_thresholds(values: Sequence[float]) -> Thresholds:
    if not len(values):
        return 0.5
    return np.array(values, np.float32)


def predicted_classes(task: Task, outputs: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """The classes (N,) of a classification: the most probable ones, unless two have a threshold."""
    if isinstance(thresholds, float):
        return outputs.argmax(axis=1)
    is_positive = outputs[:, task.positive_class] >= thresholds[0]
    return np.where(is_positive, task.positive_class, 1 - task.positive_class)


def labelled_metrics(
    task: Task, outputs: np.ndarray, targets: np.ndarray, thresholds: Thresholds = 0.5
) -> dict[str, float]:
    """Metrics by name of probabilities (N, C) or (N, L), or of values (N,) in the units of the data."""
    match task.kind:
        case "classification":
            predicted = predicted_classes(task, outputs, thresholds)
            return classification_metrics(outputs, targets, task.positive_class, predicted)
        case "multi_label":
            return multi_label_metrics(outputs, targets, thresholds)
        case "regression":
            return regression_metrics(outputs, targets)
    raise AssertionError(f"{task.kind} has no labels")


def regression_metrics(values: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Mean absolute error, root mean squared error, coefficient of determination and Spearman's rank correlation.

    R2 of constant targets is 1 if all values are right, else 0, as in scikit-learn; of fewer than two examples NaN.
    Spearman's correlation is NaN where values or targets are constant.
    """
    if not len(targets):
        return dict.fromkeys(("mae", "rmse", "r2", "spearman"), float("nan"))
    values = values.astype(np.float64)
    targets = targets.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # a model that diverged
        errors = values - targets
        squares = float((errors**2).sum())
        return {
            "mae": float(np.abs(errors).mean()),
            "rmse": float(np.sqrt(squares / len(targets))),
            "r2": _determination(squares, targets),
            "spearman": _correlation(mean_ranks(values), mean_ranks(targets)),
        }


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """(N,) ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def multi_label_metrics(
    probabilities: np.ndarray, targets: np.ndarray, thresholds: np.ndarray | float = 0.5
) -> dict[str, float]:
    """All metrics by name.

    Accuracy is the fraction of right decisions (one minus the Hamming loss), `exact_match` that of the examples whose
    labels are all right. F1 macro is the mean over the labels that occur among targets or predictions, AUC that over
    the labels that hold for some examples and not for others.

    Args:
        thresholds: probabilities from which on a label counts as predicted, one or (L,).
    """
    predicted = probabilities >= thresholds
    holds = targets > 0
    counts = count_labels(predicted, holds)
    agrees = predicted == holds
    ranking = mean_ranking(probabilities, enumerate(holds.T))
    return {
        "accuracy": mean(agrees),
        "exact_match": mean(agrees.all(axis=1)),
        "f1_macro": counts.f1_macro,
        "f1_micro": counts.f1_micro,
        "roc_auc": ranking.roc_auc,
        "average_precision": ranking.average_precision,
        "log_loss": mean(binary_log_losses(probabilities, holds)),
    }


def count_labels(predicted: np.ndarray, holds: np.ndarray) -> ClassCounts:
    """Counts of predicted and true labels, booleans (N, L)."""
    return ClassCounts(*(values.sum(axis=0) for values in (predicted & holds, predicted, holds)))


def binary_log_losses(probabilities: np.ndarray, holds: np.ndarray) -> np.ndarray:
    """(N, L) binary cross-entropies; the probability of what holds is clipped to the resolution of float32."""
    values = probabilities.astype(np.float64)
    return -np.log(np.maximum(np.where(holds, values, 1 - values), SMALLEST))


def _determination(squares: float, targets: np.ndarray) -> float:
    if len(targets) < 2:
        return float("nan")
    if targets.min() == targets.max():
        return float(squares == 0)
    return 1 - squares / float(((targets - targets.mean()) ** 2).sum())


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    x = x - x.mean()
    y = y - y.mean()
    scale = float(np.sqrt((x**2).sum() * (y**2).sum()))
    if not scale:
        return float("nan")
    return float((x * y).sum()) / scale
