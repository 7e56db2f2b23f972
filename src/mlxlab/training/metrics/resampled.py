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
    from scipy.sparse import csr_array

    if task.kind == "regression":
        return _regression(outputs.astype(np.float64), targets.astype(np.float64))
    statistics: dict[str, Statistic] = {}
    if task.kind == "classification":
        predicted = predicted_classes(task, outputs, thresholds)
        occurring, codes = np.unique(np.concatenate([predicted, targets]), return_inverse=True)
        shape = (len(codes), len(occurring))
        one_hot = csr_array((np.ones(len(codes)), codes, np.arange(len(codes) + 1)), shape)
        guessed = one_hot[: len(targets)]
        holds = one_hot[len(targets) :]
        if outputs.shape[1] == 2:
            column = np.flatnonzero(occurring == task.positive_class)
            statistics["f1"] = f1_macro(guessed[:, column], holds[:, column])
        scored = [1] if outputs.shape[1] == 2 else np.unique(targets).tolist()
        positives: Iterable[np.ndarray] = (targets == each for each in scored)
        statistics["accuracy"] = mean_of(predicted == targets)
        statistics["log_loss"] = mean_of(log_losses(outputs, targets))
    else:
        is_guessed = outputs >= thresholds
        is_true = targets > 0
        guessed = csr_array(is_guessed, dtype=np.float64)
        holds = csr_array(is_true, dtype=np.float64)
        scored = list(range(outputs.shape[1]))
        positives = is_true.T
        statistics["accuracy"] = mean_of((is_guessed == is_true).mean(axis=1))
        statistics["log_loss"] = mean_of(binary_log_losses(outputs, is_true).mean(axis=1))
    statistics["f1_macro"] = f1_macro(guessed, holds)
    if len(scored) * len(targets) * resample_count(len(targets)) <= MAX_RANKED:
        aucs = [roc_auc(outputs[:, c], each) for c, each in zip(scored, positives, strict=True)]
        statistics["roc_auc"] = lambda counts: _mean_of_numbers(
            np.stack([auc(counts) for auc in aucs], axis=1)
        )
    return statistics


def mean_of(values: np.ndarray) -> Statistic:
    numbers = values.astype(np.float64)
    return lambda counts: counts @ numbers / len(numbers)


def f1_macro(guessed: "csr_array", holds: "csr_array") -> Statistic:
    """Mean F1 of the classes that occur in a resample; both are (N, C), 1 for a class of an example."""
    correct = guessed.multiply(holds)
    both = guessed + holds

    def statistic(counts: np.ndarray) -> np.ndarray:
        hits = counts @ correct
        total = counts @ both
        return _mean_of_numbers(np.where(total > 0, 2 * hits / np.maximum(total, 1), np.nan))

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


def _mean_of_numbers(values: np.ndarray) -> np.ndarray:
    """The mean (R,) of the values (R, C) that are not NaN; NaN where none is left."""
    counted = ~np.isnan(values)
    number = counted.sum(axis=1)
    means = np.where(counted, values, 0).sum(axis=1) / np.maximum(number, 1)
    return np.where(number > 0, means, np.nan)
