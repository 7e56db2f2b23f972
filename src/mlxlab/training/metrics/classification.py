"""Metrics of a classification, of probabilities (N, C) against classes (N,) in 0..C-1.

A ratio without a denominator is 0. No array is larger than the probabilities: C may be 10,000.
"""

from typing import NamedTuple

import numpy as np

from mlxlab.training.metrics.calibration import reliability
from mlxlab.training.metrics.ranking import Ranking, mean, mean_ranking

SMALLEST = float(np.finfo(np.float32).eps)  # probability in a logarithm


class ClassCounts(NamedTuple):
    """Examples of each class (or label), (C,) int64."""

    correct: np.ndarray
    predicted: np.ndarray
    support: np.ndarray

    @property
    def precision(self) -> np.ndarray:
        return self.correct / np.maximum(self.predicted, 1)

    @property
    def recall(self) -> np.ndarray:
        return self.correct / np.maximum(self.support, 1)

    @property
    def f1(self) -> np.ndarray:
        return 2 * self.correct / np.maximum(self.predicted + self.support, 1)

    @property
    def f1_macro(self) -> float:
        """The mean over the classes that occur among targets or predictions; NaN without any."""
        return mean(self.f1[self.predicted + self.support > 0])

    @property
    def f1_micro(self) -> float:
        return float(2 * self.correct.sum() / max((self.predicted + self.support).sum(), 1))


def count_classes(predictions: np.ndarray, targets: np.ndarray, classes: int) -> ClassCounts:
    """Counts of predicted and true classes (N,)."""
    correct = targets[predictions == targets]
    return ClassCounts(
        *(np.bincount(values, minlength=classes) for values in (correct, predictions, targets))
    )


def classification_metrics(
    probabilities: np.ndarray,
    targets: np.ndarray,
    positive: int = 1,
    predictions: np.ndarray | None = None,
) -> dict[str, float]:
    """All metrics by name.

    Of two classes, `positive` is the positive one. With more, precision, recall and F1 are means weighted by support; AUC
    and average precision are unweighted means, one class against the rest. Balanced accuracy is the mean recall
    (Brodersen et al. 2010). Classes without an example do not count in unweighted means. `predictions` are the classes
    (N,), without them the most probable ones.
    """
    classes = probabilities.shape[1]
    if predictions is None:
        predictions = probabilities.argmax(axis=1)
    counts = count_classes(predictions, targets, classes)
    size = max(len(targets), 1)
    shares = counts.support / size
    if classes == 2:
        shares = np.eye(2)[positive]
    ranking = rank_classes(probabilities, targets, positive)
    confidence = probabilities[np.arange(len(targets)), predictions]
    return {
        "accuracy": float(counts.correct.sum() / size),
        "balanced_accuracy": mean(counts.recall[counts.support > 0]),
        "precision": float(counts.precision @ shares),
        "recall": float(counts.recall @ shares),
        "f1": float(counts.f1 @ shares),
        "f1_macro": counts.f1_macro,
        "f1_micro": counts.f1_micro,
        "roc_auc": ranking.roc_auc,
        "average_precision": ranking.average_precision,
        "log_loss": mean(log_losses(probabilities, targets)),
        "calibration_error": reliability(confidence, predictions == targets).error,
    }


def rank_classes(probabilities: np.ndarray, targets: np.ndarray, positive: int = 1) -> Ranking:
    """ROC-AUC and average precision of the positive class, or the means over the classes, each against the rest."""
    scored = np.unique(targets).tolist()
    if probabilities.shape[1] == 2:
        scored = [positive]
    return mean_ranking(probabilities, ((c, targets == c) for c in scored))


def log_losses(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(N,) negative logarithms of the target's probability, which is clipped to the resolution of float32."""
    chosen = probabilities[np.arange(len(targets)), targets].astype(np.float64)
    return -np.log(np.maximum(chosen, SMALLEST))


def confusion_matrix(predictions: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    """(C, C) counts: rows are the true classes, columns the predicted ones."""
    return np.bincount(targets * classes + predictions, minlength=classes**2).reshape(
        classes, classes
    )
