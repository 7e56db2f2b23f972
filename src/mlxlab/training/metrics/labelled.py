"""The metrics of a labelled task by its kind."""

from collections.abc import Sequence

import numpy as np

from mlxlab.data.batch import Task, TaskKind
from mlxlab.schema.metric_names import VALID
from mlxlab.training.metrics.classification import classification_metrics
from mlxlab.training.metrics.multi_label import multi_label_metrics
from mlxlab.training.metrics.regression import regression_metrics

MAIN_METRIC: dict[TaskKind, str] = {
    "classification": "accuracy",
    "multi_label": "f1_macro",
    "regression": "rmse",
}
"""The metric in which a model is compared with its baselines, unless `main_metric` says otherwise."""

Thresholds = np.ndarray | float
"""Probabilities from which labels hold (L,), or the positive one of two classes does (1,); a float for all labels."""


def main_metric(task: Task, objective: str) -> str:
    """The metric in which a model is compared with its baselines: of two classes F1 if it is the objective."""
    is_binary = task.kind == "classification" and task.num_classes == 2
    if is_binary and objective == f"{VALID}f1":
        return "f1"
    return MAIN_METRIC[task.kind]


def as_thresholds(values: Sequence[float]) -> Thresholds:
    return np.array(values, np.float32) if len(values) else 0.5


def predicted_classes(task: Task, outputs: np.ndarray, thresholds: Thresholds = 0.5) -> np.ndarray:
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
