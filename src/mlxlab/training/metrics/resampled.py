"""Metrics of resamples, for the bootstrap: each is a function of how often every example was drawn."""

from collections.abc import Sequence

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.stats.bootstrap import Statistic, resample_count
from mlxlab.training.metrics.classification import log_losses
from mlxlab.training.metrics.labelled import Thresholds, binary_log_losses, predicted_classes

MAX_RANKED = 50_000_000  # scores that are ranked in all resamples; ROC-AUC of more gets no interval


def resampled_metrics(
    task: Task, outputs: np.ndarray, targets: np.ndarray, thresholds: Thresholds
) -> dict[str, Statistic]:
    """The metrics that get an interval, by name, of outputs and targets as in `labelled_metrics`."""
    if task.kind == "regression":
        return _regression(outputs.astype(np.float64), targets.astype(np.float64))
    if task.kind == "classification":
        pairs: Sequence[tuple[np.ndarray, ...]]
        predictions = predicted_classes(task, outputs, thresholds)
        rows = np.arange(len(targets))
        hits = np.flatnonzero(predictions == targets)
        pairs = [(hits, targets[hits]), (rows, predictions), (rows, targets)]
        scored = np.unique(targets).tolist()
        if outputs.shape[1] == 2:
            scored = [1]
        positives = ((outputs[:, c], targets == c) for c in scored)
        means = {"accuracy": predictions == targets, "log_loss": log_losses(outputs, targets)}
    else:
        predicted = outputs >= thresholds
        holds = targets > 0
        pairs = [np.nonzero(values) for values in (predicted & holds, predicted, holds)]
        scored = list(range(outputs.shape[1]))
        positives = ((outputs[:, c], holds[:, c]) for c in scored)
        means = {
            "accuracy": (predicted == holds).mean(axis=1),
            "log_loss": binary_log_losses(outputs, holds).mean(axis=1),
        }
    statistics = {name: mean_of(values) for name, values in means.items()}
    statistics["f1_macro"] = f1_macro(pairs)
    if task.kind == "classification" and outputs.shape[1] == 2:
        positive = task.positive_class
        statistics["f1"] = f1_macro(
            [(rows[classes == positive], classes[classes == positive]) for rows, classes in pairs]
        )
    if len(scored) * len(targets) * resample_count(len(targets)) <= MAX_RANKED:
        aucs = [roc_auc(scores, positive) for scores, positive in positives]
        statistics["roc_auc"] = lambda counts: _mean_of_numbers(
            np.stack([auc(counts) for auc in aucs], axis=1)
        )
    return statistics


def mean_of(values: np.ndarray) -> Statistic:
    numbers = values.astype(np.float64)
    return lambda counts: counts @ numbers / len(numbers)


def f1_macro(pairs: Sequence[tuple[np.ndarray, ...]]) -> Statistic:
    """Mean F1 of the classes that occur in a resample.

    Args:
        pairs: examples and their classes, of correct predictions, of predictions and of targets.
    """
    occurring, codes = np.unique(
        np.concatenate([classes for _, classes in pairs]), return_inverse=True
    )
    splits = np.split(codes, np.cumsum([len(classes) for _, classes in pairs])[:-1])
    sums = [
        _class_sums(rows, classes, len(occurring))
        for (rows, _), classes in zip(pairs, splits, strict=True)
    ]

    def statistic(counts: np.ndarray) -> np.ndarray:
        correct, predicted, support = (total(counts) for total in sums)
        total = predicted + support
        return _mean_of_numbers(np.where(total > 0, 2 * correct / np.maximum(total, 1), np.nan))

    return statistic


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> Statistic:
    """ROC-AUC as in `ranking.rank`; NaN of a resample without a positive or without a negative."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(
        np.append(True, np.diff(scores[order]) > 0)[: len(scores)]
    )  # of equal scores

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


def _class_sums(rows: np.ndarray, classes: np.ndarray, number: int) -> Statistic:
    """(R, C) counts by class, of examples with a class each."""
    order = np.argsort(classes, kind="stable")
    present, starts = np.unique(classes[order], return_index=True)
    rows = rows[order]

    def statistic(counts: np.ndarray) -> np.ndarray:
        sums = np.zeros((len(counts), number))
        if len(rows):
            sums[:, present] = np.add.reduceat(counts[:, rows], starts, axis=1)
        return sums

    return statistic


def _mean_of_numbers(values: np.ndarray) -> np.ndarray:
    """The mean (R,) of the values (R, C) that are not NaN; NaN where none is left."""
    counted = ~np.isnan(values)
    number = counted.sum(axis=1)
    return np.where(
        number > 0, np.where(counted, values, 0).sum(axis=1) / np.maximum(number, 1), np.nan
    )
