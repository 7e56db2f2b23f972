"""Evaluation: losses, bits per byte, and outputs that do not depend on the batch size."""

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxlab.data.batch import Batch, Task, pad_rows
from mlxlab.schema.metric_names import BY_TASK
from mlxlab.training.evaluate import evaluate
from support.models import BagOfEmbeddings

ROWS = 23
TASKS = {
    "classification": Task("classification", 3, ("a", "b", "c")),
    "multi_label": Task("multi_label", 3, ("a", "b", "c")),
    "regression": Task("regression", 1, target_mean=100.0, target_deviation=20.0),
}


def labelled_batches(kind, size):
    """Batches of `ROWS` examples, each padded to `size` rows; example 105 has no label."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 20, (ROWS, 6)).astype(np.int32)
    targets = {
        "classification": rng.integers(0, 3, ROWS).astype(np.int32),
        "multi_label": rng.integers(0, 2, (ROWS, 3)).astype(np.float32),
        "regression": rng.normal(size=ROWS).astype(np.float32),
    }[kind]
    weights = np.ones_like(targets, dtype=np.float32)
    weights[5] = 0
    ids = np.arange(100, 100 + ROWS)
    fields = (tokens, np.ones_like(tokens), targets, weights, ids)
    return [pad_rows(Batch(*(f[i : i + size] for f in fields)), size) for i in range(0, ROWS, size)]


def make_labelled_model(kind):
    mx.random.seed(3)
    return BagOfEmbeddings(classes=TASKS[kind].num_classes, dropout=0.5)


@pytest.mark.parametrize("kind", TASKS)
def test_evaluation_of_every_kind_is_the_same_for_every_batch_size_and_has_no_dropout(kind):
    model = make_labelled_model(kind)
    model.train()
    first, *others = (
        evaluate(model, labelled_batches(kind, size), TASKS[kind]) for size in (ROWS, 1, 7)
    )
    assert model.training
    assert [f"valid/{name}" for name in first.metrics] == [*BY_TASK[kind]]
    assert first.positions.tolist() == [i for i in range(ROWS) if i != 5]
    np.testing.assert_array_equal(first.ids, first.positions + 100)
    for other in others:
        assert other.metrics == pytest.approx(first.metrics, rel=1e-5)
        np.testing.assert_array_equal(other.ids, first.ids)
        np.testing.assert_array_equal(other.positions, first.positions)
        np.testing.assert_array_equal(other.targets, first.targets)
        np.testing.assert_allclose(other.outputs, first.outputs, rtol=1e-5)


def test_the_losses_of_labels_and_numbers_are_those_of_their_metrics():
    labels, numbers = (
        evaluate(make_labelled_model(kind), labelled_batches(kind, 7), TASKS[kind])
        for kind in ("multi_label", "regression")
    )
    assert labels.metrics["loss"] == pytest.approx(labels.metrics["log_loss"], rel=1e-5)
    squared = (numbers.metrics["rmse"] / 20.0) ** 2
    assert numbers.metrics["loss"] == pytest.approx(squared, rel=1e-5)
    assert abs(numbers.targets.mean() - 100.0) < 20.0  # in the units of the data


TARGETS = np.array([[1, 2, 3], [3, 3, 0]], np.int32)
WEIGHTS = np.array([[1, 1, 1], [1, 1, 0]], np.float32)


class Unigram(nn.Module):
    """The same logits for every target."""

    def __call__(self, tokens, segment_ids):
        return mx.zeros((*tokens.shape, 4))


def metrics_with(token_bytes):
    batch = Batch(TARGETS, np.ones_like(TARGETS), TARGETS, WEIGHTS, np.arange(2))
    task = Task("language_modelling", 4, token_bytes=token_bytes)
    return evaluate(Unigram(), [batch], task).metrics


def test_bits_per_byte_are_the_loss_of_the_targets_by_their_bytes():
    metrics = metrics_with((0, 1, 2, 5))
    assert metrics["loss"] == pytest.approx(math.log(4))
    assert metrics["bits_per_byte"] == pytest.approx(5 * 2 / (1 + 2 + 3 * 5))
    assert metrics_with(()).keys() == {"loss", "perplexity"}
