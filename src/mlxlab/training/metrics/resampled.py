"""Metrics of resamples, for the bootstrap: each is a function of how often every example was drawn."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.stats.bootstrap import Statistic, resample_count
from mlxlab.training.metrics.classification import log_losses
from mlxlab.training.metrics.labelled import Thresholds, predicted_classes
from mlxlab.training.metrics.multi_label import binary_log_losses

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MAX_RANKED = 50_000_000  # scores that are ranked in all resamples; ROC-AUC of more gets no interval


def resampled_metrics(
    task: Task, outputs: np.ndarray, targets: np.ndarray, thresholds: Thresholds = 0.5
) -> dict[str, Statistic]:
    """The metrics that get an interval, by name, of outputs and targets as in `labelled_metrics`."""
    if task.kind == "regression":
        return _regression(outputs.astype(np.float64), targets.astype(np.float64))
    from scipy.sparse import csr_array

    classes = outputs.shape[1]
    positives: Iterable[np.ndarray]
    if task.kind == "classification":
        predictions = predicted_classes(task, outputs, thresholds)
        predicted = _one_hot(predictions, classes)
        holds = _one_hot(targets, classes)
        scored = [1] if classes == 2 else np.unique(targets).tolist()
        positives = (targets == number for number in scored)
        means = {"accuracy": predictions == targets, "log_loss": log_losses(outputs, targets)}
    else:
        is_predicted = outputs >= thresholds
        is_true = targets > 0
        predicted = csr_array(is_predicted.astype(np.float64))
        holds = csr_array(is_true.astype(np.float64))
        scored = list(range(classes))
        positives = is_true.T
        means = {
            "accuracy": (is_predicted == is_true).mean(axis=1),
            "log_loss": binary_log_losses(outputs, is_true).mean(axis=1),
        }
    statistics = {name: mean_of(values) for name, values in means.items()}
    statistics["f1_macro"] = f1_macro(predicted, holds)
    if task.kind == "classification" and classes == 2:
        positive = [task.positive_class]
        statistics["f1"] = f1_macro(predicted[:, positive], holds[:, positive])
    if len(scored) * len(targets) * resample_count(len(targets)) <= MAX_RANKED:
        pairs = zip(scored, positives, strict=True)
        aucs = [roc_auc(outputs[:, column], is_positive) for column, is_positive in pairs]
        statistics["roc_auc"] = lambda counts: _mean_of_numbers(
            np.stack([auc(counts) for auc in aucs], axis=1)
        )
    return statistics


def _one_hot(classes: np.ndarray, number: int) -> "csr_array":
    """(N,) -> (N, C), sparse."""
    from scipy.sparse import csr_array

    rows = np.arange(len(classes) + 1)
    return csr_array((np.ones(len(classes)), classes, rows), shape=(len(classes), number))


def mean_of(values: np.ndarray) -> Statistic:
    numbers = values.astype(np.float64)
    return lambda counts: counts @ numbers / len(numbers)


def f1_macro(predicted: "csr_array", holds: "csr_array") -> Statistic:
    """Mean F1 of the classes that occur in a resample, of sparse matrices (N, C) of 0 and 1."""
    either = predicted + holds
    occurring = np.unique(either.indices)
    either = either[:, occurring]
    both = predicted.multiply(holds).tocsr()[:, occurring]

    def statistic(counts: np.ndarray) -> np.ndarray:
        total = counts @ either
        hits = counts @ both
        return _mean_of_numbers(np.where(total > 0, 2 * hits / np.maximum(total, 1), np.nan))

    return statistic


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> Statistic:
    """ROC-AUC as in `ranking.rank`; NaN of a resample without a positive or without a negative."""
    order = np.argsort(scores, kind="stable")
    # Equal scores form a group, which begins where the score rises.
    starts = np.flatnonzero(np.append(True, np.diff(scores[order]) > 0)[: len(scores)])

    def statistic(counts: np.ndarray) -> np.ndarray:
        ordered = counts[:, order]
        hits = np.add.reduceat(ordered * positive[order], starts, axis=1)
        misses = np.add.reduceat(ordered, starts, axis=1) - hits
        wins = (hits * (np.cumsum(misses, axis=1) - misses / 2)).sum(axis=1)
        pairs = hits.sum(axis=1) * misses.sum(axis=1)
        return np.where(pairs > 0, wins / np.maximum(pairs, 1), np.nan)

    return statistic


def _regression(values: np.ndarray, targets: np.ndarray) -> dict[str, Statistic]:
    errors = values - targets
    centred = targets - targets.mean()
    squares = mean_of(errors**2)

    def r2(counts: np.ndarray) -> np.ndarray:
        variance = mean_of(centred**2)(counts) - mean_of(centred)(counts) ** 2
        return 1 - np.divide(
            squares(counts), variance, out=np.full(len(counts), np.nan), where=variance > 0
        )

    return {
        "mae": mean_of(np.abs(errors)),
        "rmse": lambda counts: np.sqrt(squares(counts)),
        "r2": r2,
    }


def _mean_of_numbers(values: np.ndarray) -> np.ndarray:
    """The mean (R,) of the values (R, C) that are not NaN; NaN where none is left."""
    counted = ~np.isnan(values)
    number = counted.sum(axis=1)
    return np.where(
        number > 0, np.where(counted, values, 0).sum(axis=1) / np.maximum(number, 1), np.nan
    )
