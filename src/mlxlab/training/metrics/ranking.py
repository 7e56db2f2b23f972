"""Metrics of scores by their order: ROC-AUC and average precision, and the threshold with the greatest F1."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


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
    if not positives or not negatives:
        return Ranking(float("nan"), 1.0 if positives else float("nan"))
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
    return float(values.mean()) if values.size else float("nan")


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
    below = ordered[last + 1] if last + 1 < len(ordered) else np.float32(0)
    middle = below + (ordered[last] - below) / np.float32(2)
    return float(middle if middle > below else ordered[last])


def precision_recall(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall (K,) at each distinct score as threshold, from the highest to the lowest."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(scores[order][1:] < scores[order][:-1], True))
    hits = np.cumsum(positive[order])[ends]
    return hits / (ends + 1), hits / max(int(positive.sum()), 1)
