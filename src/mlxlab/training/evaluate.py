"""Evaluation without dropout. Metrics are weighted by target and do not depend on the batch size."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from operator import length_hint
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlxlab.backend.ops.cross_entropy import cross_entropy
from mlxlab.data.batch import Batch, Task
from mlxlab.terminal.messages import track
from mlxlab.training.device_batch import DeviceBatch, to_device
from mlxlab.training.head_chunks import token_losses
from mlxlab.training.metrics.labelled import as_thresholds, labelled_metrics

NO_EXAMPLES = np.zeros(0, np.int64)


class Evaluation(NamedTuple):
    """Metrics by name; for a labelled task also what they were computed from, for all examples with a label.

    `positions` are the places of the examples in the order of the batches. Targets and outputs: classes (N,) and
    probabilities (N, C); 0 or 1 (N, L) and probabilities (N, L); or two times values (N,) in the units of the data.
    """

    metrics: dict[str, float]
    positions: np.ndarray = NO_EXAMPLES
    ids: np.ndarray = NO_EXAMPLES
    targets: np.ndarray = NO_EXAMPLES
    outputs: np.ndarray = NO_EXAMPLES


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    task: Task,
    *,
    limit: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    thresholds: Sequence[float] = (),
) -> Evaluation | None:
    """Evaluates on at most `limit` batches; None if `should_stop` was true before one of them.

    `thresholds` are the probabilities from which the `decided_labels` of the task hold; 0.5 without any.
    """
    total = weight = 0.0
    token_bytes = np.array(task.token_bytes, np.float64)  # (V,), or empty where they are not known
    num_bytes = 0.0
    examples: list[tuple[np.ndarray, ...]] = []
    position = 0
    was_training = model.training
    model.eval()  # no dropout
    try:
        num_batches = length_hint(batches)
        expected = min(num_batches, limit or num_batches) or limit
        for batch in track(
            islice(batches, limit), "evaluation: batches", expected, at_most=not num_batches
        ):
            if should_stop():
                return None
            device_batch = to_device(batch._replace(aux={}))
            if task.kind == "language_modelling":
                values = token_losses(model, device_batch)
                mx.eval(values)
                if len(token_bytes):
                    num_bytes += float((token_bytes[batch.targets] * batch.loss_weights).sum())
            else:
                logits = model(device_batch.tokens, device_batch.segment_ids).astype(mx.float32)
                values = target_losses(logits, device_batch, task)
                mx.eval(logits, values)
                examples.append(_labelled_examples(logits, batch, task, position))
                position += int(
                    np.count_nonzero(batch.example_ids >= 0)
                )  # -1 are rows that only fill up
            weights = batch.loss_weights
            total += float((np.array(values, np.float64) * weights).sum())
            weight += float(weights.sum())
    finally:
        model.train(was_training)
    loss = total / max(weight, 1e-9)
    if task.kind == "language_modelling":
        metrics = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        if num_bytes:
            metrics["bits_per_byte"] = total / math.log(2) / num_bytes
        return Evaluation(metrics)
    positions, ids, targets, outputs = (
        np.concatenate(arrays) for arrays in zip(*examples, strict=True)
    )
    metrics = {
        "loss": loss,
        **labelled_metrics(task, outputs, targets, as_thresholds(thresholds)),
    }
    return Evaluation(metrics, positions, ids, targets, outputs)


def target_losses(logits: mx.array, batch: DeviceBatch, task: Task) -> mx.array:
    """One float32 loss per target: cross-entropy, binary cross-entropy, or the squared error of standardised values."""
    match task.kind:
        case "multi_label":
            return nn.losses.binary_cross_entropy(
                logits, batch.targets, with_logits=True, reduction="none"
            )
        case "regression":
            return (logits.squeeze(-1) - batch.targets) ** 2
    return cross_entropy(logits, batch.targets)


def read_out(logits: mx.array, task: Task) -> np.ndarray:
    """Float32 logits as probabilities (B, C) or (B, L), or as numbers (B,) in the units of the data."""
    match task.kind:
        case "multi_label":
            return np.array(mx.sigmoid(logits))
        case "regression":
            return np.array(logits[:, 0], np.float64) * task.target_deviation + task.target_mean
    return np.array(mx.softmax(logits, axis=-1))


def _labelled_examples(
    logits: mx.array, batch: Batch, task: Task, position: int
) -> tuple[np.ndarray, ...]:
    """Positions, ids, targets and outputs of the examples of a batch that have a label; the first is at `position`."""
    weights = batch.loss_weights
    labelled = (weights > 0).reshape(len(weights), -1).any(axis=1)
    positions = position + np.cumsum(batch.example_ids >= 0) - 1
    targets = batch.targets
    if task.kind == "regression":
        targets = targets.astype(np.float64) * task.target_deviation + task.target_mean
    outputs = read_out(logits, task)
    return positions[labelled], batch.example_ids[labelled], targets[labelled], outputs[labelled]
