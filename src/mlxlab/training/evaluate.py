"""Evaluation without dropout. Metrics are weighted by target and do not depend on the batch size."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.data.batch import Batch, Task
from mlxlab.training.device_batch import DeviceBatch, to_device
from mlxlab.training.losses.loss import cross_entropy
from mlxlab.training.metrics import classification_metrics, confusion_matrix


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name; for a classification also ids (N,), targets (N,) and probabilities (N, C) of all examples."""

    metrics: dict[str, float]
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    targets: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    probabilities: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))

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
    with evaluation_mode(model):
        for batch in islice(batches, limit):
            if should_stop():
                return None
            logits, values = _forward(model, to_device(batch))
            total += float((np.array(values, np.float64) * batch.loss_weights).sum())
            weight += float(batch.loss_weights.sum())
            if len(token_bytes):
                num_bytes += float((token_bytes[batch.targets] * batch.loss_weights).sum())
            if classify:
                weighted = batch.loss_weights > 0
                outputs.append(
                    (
                        batch.example_ids[weighted],
                        batch.targets[weighted],
                        np.array(mx.softmax(logits, axis=-1))[weighted],
                    )
                )
    loss = total / max(weight, 1e-9)
    if not classify:
        metrics = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        return Evaluation(metrics | ({"bits_per_byte": total / math.log(2) / num_bytes} if num_bytes else {}))
    ids, targets, probabilities = (np.concatenate(arrays) for arrays in zip(*outputs, strict=True))
    return Evaluation({"loss": loss, **classification_metrics(probabilities, targets)}, ids, targets, probabilities)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Switches dropout off; restores the previous mode afterwards."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def _forward(model: nn.Module, batch: DeviceBatch) -> tuple[mx.array, mx.array]:
    logits = model(batch.tokens, batch.segment_ids).astype(mx.float32)
    values = cross_entropy(logits, batch.targets)
    mx.eval(logits, values)
    return logits, values
