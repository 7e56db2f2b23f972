"""Classification metrics in NumPy. Classes are 0..C-1; of two classes, class 1 is the positive one."""

import numpy as np


def classification_metrics(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Accuracy, precision, recall, F1 and ROC-AUC of probabilities (N, C) against targets (N,).

    With more than two classes precision, recall and F1 are means weighted by support, AUC is one-vs-rest, unweighted.
    A ratio without a denominator is 0; an AUC of one class is NaN.
    """
    classes = probabilities.shape[1]
    counts = confusion_matrix(probabilities.argmax(axis=1), targets, classes)
    precision, recall, f1 = _per_class(counts)
    support = counts.sum(axis=1)
    mean = (lambda v: float(v[1])) if classes == 2 else (lambda v: float((v * support).sum() / max(support.sum(), 1)))
    scored_classes = [1] if classes == 2 else range(classes)
    return {
        "accuracy": float(np.trace(counts) / max(counts.sum(), 1)),
        "precision": mean(precision),
        "recall": mean(recall),
        "f1": mean(f1),
        "roc_auc": float(np.mean([roc_auc(probabilities[:, c], targets == c) for c in scored_classes])),
    }


def confusion_matrix(predictions: np.ndarray, targets: np.ndarray, classes: int) -> np.ndarray:
    """(C, C) counts: rows are the true classes, columns the predicted ones."""
    return np.bincount(targets * classes + predictions, minlength=classes**2).reshape(classes, classes)


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The probability that a positive scores above a negative, ties counting half (Mann and Whitney 1947)."""
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # the mean rank of equal scores
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _per_class(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1, (C,) each, from a confusion matrix."""
    correct = np.diag(counts)
    precision = correct / np.maximum(counts.sum(axis=0), 1)
    recall = correct / np.maximum(counts.sum(axis=1), 1)
    f1 = 2 * correct / np.maximum(counts.sum(axis=0) + counts.sum(axis=1), 1)
    return precision, recall, f1
