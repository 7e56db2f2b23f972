"""Metrics of several labels that may hold together: of probabilities (N, L) against 0 or 1 (N, L)."""

import numpy as np

from mlxlab.training.metrics.classification import SMALLEST, ClassCounts
from mlxlab.training.metrics.ranking import mean, mean_ranking


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
