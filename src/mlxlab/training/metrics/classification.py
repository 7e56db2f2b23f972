"""Metrics of a classification, of probabilities (N, C) against classes (N,) in 0..C-1; of scores by their order.

A ratio without a denominator is 0. No array is larger than the probabilities: C may be 10,000.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

BINS = 15  # equally wide, as in Guo et al. (2017)
SMALLEST = float(np.finfo(np.float32).eps)  # probability in a logarithm


class Ranking(NamedTuple):
    """ROC-AUC is NaN without a positive or without a negative, average precision without a positive."""

    roc_auc: float
    average_precision: float


def rank(scores: np.ndarray, positive: np.ndarray) -> Ranking:
    """Ranks scores (N,) against booleans (N,).

    ROC-AUC is the probability that a positive scores above a negative, ties counting half (Mann and Whitney 1947).
    Average precision is the mean, over the positives, of the precision at their score as threshold.
    """
    hits = np.sort(scores[positive])
    ordered = np.sort(scores)
    positives = len(hits)
    negatives = len(scores) - positives
    if not positives:
        return Ranking(float("nan"), float("nan"))
    if not negatives:
        return Ranking(float("nan"), 1.0)
    below = np.searchsorted(ordered, hits)
    not_above = np.searchsorted(ordered, hits, side="right")
    # A positive wins against all below it and half of its ties; this counts positives too, which tie with themselves.
    wins = (float((below + not_above).sum()) - positives**2) / 2
    precision = (positives - np.searchsorted(hits, hits)) / (len(scores) - below)
    return Ranking(wins / (positives * negatives), float(precision.mean()))


def mean_ranking(scores: np.ndarray, positives: Iterable[tuple[int, np.ndarray]]) -> Ranking:
    """The unweighted means over columns of `scores` (N, C), each given by its number and its booleans (N,).

    A column for which a value is NaN does not count in its mean, which is NaN if none is left.
    """
    columns = np.ascontiguousarray(scores.T)  # Reading a column of a matrix reads nearly all of it.
    rankings = [rank(columns[number], positive) for number, positive in positives]
    means = [mean(values[~np.isnan(values)]) for values in np.array(rankings).reshape(-1, 2).T]
    return Ranking(*means)


def mean(values: np.ndarray) -> float:
    """NaN of no values."""
    if not values.size:
        return float("nan")
    return float(values.mean())


def best_threshold(scores: np.ndarray, positive: np.ndarray) -> float:
    """The threshold t in [0, 1] for which `scores >= t` has the greatest F1; 0.5 without a positive.

    It lies halfway between two scores of the data, or between the lowest one and 0 where all reach it; of equally good
    ones it is the highest. It is 0 only if scores of 0 have to reach it. float32 holds it exactly, as the probabilities
    of a model, so that rounding moves no example across it.
    """
    if not positive.any():
        return 0.5
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order].astype(np.float32)
    hits = np.cumsum(positive[order])
    f1 = 2 * hits / (np.arange(1, len(ordered) + 1) + hits[-1])
    ends = np.append(ordered[1:] < ordered[:-1], True)  # a threshold cannot separate equal scores
    last = int(np.argmax(np.where(ends, f1, -1.0)))
    below = np.float32(0)
    if last + 1 < len(ordered):
        below = ordered[last + 1]
    middle = below + (ordered[last] - below) / np.float32(2)
    if middle > below:
        return float(middle)
    return float(ordered[last])


def precision_recall(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall (K,) at each distinct score as threshold, from the highest to the lowest."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(scores[order][1:] < scores[order][:-1], True))
    hits = np.cumsum(positive[order])[ends]
    return hits / (ends + 1), hits / max(int(positive.sum()), 1)


class Reliability(NamedTuple):
    """Predictions by their confidence, in bins of equal width; an empty bin has count 0 and NaN means."""

    counts: np.ndarray  # (BINS,)
    confidence: np.ndarray  # (BINS,) mean
    accuracy: np.ndarray  # (BINS,) fraction that holds

    @property
    def error(self) -> float:
        """The expected calibration error (Naeini et al. 2015): the mean gap, weighted by count; NaN without any."""
        is_used = self.counts > 0
        if not is_used.any():
            return float("nan")
        gaps = np.abs(self.confidence - self.accuracy)[is_used]
        return float((gaps * self.counts[is_used]).sum() / self.counts.sum())


def reliability(confidence: np.ndarray, holds: np.ndarray) -> Reliability:
    """Bins predictions by confidence (N,) in [0, 1]; `holds` (N,): which were right. Bins include their upper end."""
    bins = np.searchsorted(np.arange(1, BINS) / BINS, confidence)
    counts = np.bincount(bins, minlength=BINS)
    totals = (np.bincount(bins, values, BINS) for values in (confidence, holds))
    means = (np.where(counts > 0, total / np.maximum(counts, 1), np.nan) for total in totals)
    return Reliability(counts, *means)


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
