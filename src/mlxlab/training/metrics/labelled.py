"""The metrics of a labelled task by its kind."""

import numpy as np

from mlxlab.data.batch import Task, TaskKind
from mlxlab.training.metrics.classification import classification_metrics
from mlxlab.training.metrics.multi_label import multi_label_metrics
from mlxlab.training.metrics.regression import regression_metrics

MAIN_METRIC: dict[TaskKind, str] = {
    "classification": "accuracy",
    "multi_label": "f1_macro",
    "regression": "rmse",
}
"""The metric in which a model is compared with its baselines."""


def labelled_metrics(
    task: Task, outputs: np.ndarray, targets: np.ndarray, thresholds: np.ndarray | float = 0.5
) -> dict[str, float]:
    """Metrics by name of probabilities (N, C) or (N, L), or of values (N,) in the units of the data.

    `thresholds` are those of labels (multi_label).
    """
    match task.kind:
        case "classification":
            return classification_metrics(outputs, targets, task.positive_class)
        case "multi_label":
            return multi_label_metrics(outputs, targets, thresholds)
        case "regression":
            return regression_metrics(outputs, targets)
    raise AssertionError(f"{task.kind} has no labels")
