"""Evaluation without dropout. Metrics are weighted by target and do not depend on the batch size."""

import math
from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.data.batch import Batch, Task
from mlxlab.ops.cross_entropy import cross_entropy
from mlxlab.training.device_batch import to_device


class Evaluation(NamedTuple):
    """Metrics by name; for a classification also ids (N,), targets (N,) and probabilities (N, C) of all examples."""

    metrics: dict[str, float]
    ids: np.ndarray = np.zeros(0, np.int64)
    targets: np.ndarray = np.zeros(0, np.int32)
    probabilities: np.ndarray = np.zeros((0, 0), np.float32)

    @property
    def confusion(self) -> np.ndarray:
        """(C, C) counts: rows are the true classes. Empty unless it is a classification."""
        if not len(self.targets):
            return np.zeros((0, 0), np.int64)
        return confusion_matrix(self.probabilities.argmax(axis=1), self.targets, self.probabilities.shape[1])


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    task: Task,
    *,
    limit: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Evaluates on at most `limit` batches; None if `should_stop` was true before one of them."""
    classify = task.kind == "classification"
    total = weight = num_bytes = 0.0
    token_bytes = np.array(task.token_bytes, np.float64)
    outputs: list[tuple[np.ndarray, ...]] = []
    was_training = model.training
    model.eval()  # no dropout
    try:
        for batch in islice(batches, limit):
            if should_stop():
                return None
            device_batch = to_device(batch)
            logits = model(device_batch.tokens, device_batch.segment_ids).astype(mx.float32)
            values = cross_entropy(logits, device_batch.targets)
            mx.eval(logits, values)
            weights = batch.loss_weights
            total += float((np.array(values, np.float64) * weights).sum())
            weight += float(weights.sum())
            if len(token_bytes):
                num_bytes += float((token_bytes[batch.targets] * weights).sum())
            if classify:
                arrays = (batch.example_ids, batch.targets, np.array(mx.softmax(logits, axis=-1)))
                outputs.append(tuple(array[weights > 0] for array in arrays))
    finally:
        model.train(was_training)
    loss = total / max(weight, 1e-9)
    if not classify:
        metrics = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        return Evaluation(metrics | ({"bits_per_byte": total / math.log(2) / num_bytes} if num_bytes else {}))
    ids, targets, probabilities = (np.concatenate(arrays) for arrays in zip(*outputs, strict=True))
    return Evaluation({"loss": loss, **classification_metrics(probabilities, targets)}, ids, targets, probabilities)


def classification_metrics(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Accuracy, precision, recall, F1 and ROC-AUC of probabilities (N, C) against targets (N,) in 0..C-1.

    Of two classes, class 1 is the positive one. With more, precision, recall and F1 are means weighted by support, AUC
    is one-vs-rest, unweighted. A ratio without a denominator is 0; an AUC of one class is NaN.
    """
    classes = probabilities.shape[1]
    counts = confusion_matrix(probabilities.argmax(axis=1), targets, classes)
    correct, support, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    mean = (lambda v: float(v[1])) if classes == 2 else (lambda v: float((v * support).sum() / max(support.sum(), 1)))
    scored_classes = [1] if classes == 2 else range(classes)
    return {
        "accuracy": float(correct.sum() / max(counts.sum(), 1)),
        "precision": mean(correct / np.maximum(predicted, 1)),
        "recall": mean(correct / np.maximum(support, 1)),
        "f1": mean(2 * correct / np.maximum(predicted + support, 1)),
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
