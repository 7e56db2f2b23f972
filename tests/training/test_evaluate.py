"""Evaluation: losses, bits per byte, and outputs that do not depend on the batch size."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.data.batch import Batch, Task, pad_rows
from mlxlab.schema.metric_names import BY_TASK, lower_is_better
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


def test_the_loss_of_labels_is_binary_cross_entropy():
    result = evaluate(
        make_labelled_model("multi_label"), labelled_batches("multi_label", 7), TASKS["multi_label"]
    )
    assert result.metrics["loss"] == pytest.approx(result.metrics["log_loss"], rel=1e-5)


def test_the_loss_of_a_regression_is_the_squared_error_of_standardised_targets():
    result = evaluate(
        make_labelled_model("regression"), labelled_batches("regression", 7), TASKS["regression"]
    )
    assert result.metrics["loss"] == pytest.approx((result.metrics["rmse"] / 20.0) ** 2, rel=1e-5)
    assert abs(result.targets.mean() - 100.0) < 20.0  # in the units of the data


def test_errors_and_losses_are_better_when_lower():
    lower = {
        metric for metrics in BY_TASK.values() for metric in metrics if lower_is_better(metric)
    }
    names = ["loss", "log_loss", "calibration_error", "mae", "rmse", "perplexity", "bits_per_byte"]
    assert lower == {f"valid/{name}" for name in names}


TARGETS = np.array([[1, 2, 3], [3, 3, 0]], np.int32)
WEIGHTS = np.array([[1, 1, 1], [1, 1, 0]], np.float32)


class Unigram:
    """The same logits for every target."""

    training = False

    def __init__(self, logits):
        self.logits = logits

    def eval(self):
        pass

    def train(self, training):
        pass

    def __call__(self, tokens, segment_ids):
        return mx.broadcast_to(mx.array(self.logits), (*tokens.shape, len(self.logits)))


def metrics_with(token_bytes):
    segment_ids = np.ones_like(TARGETS)
    batch = Batch(TARGETS, segment_ids, TARGETS, WEIGHTS, np.arange(2))
    task = Task("language_modelling", 4, token_bytes=token_bytes)
    return evaluate(Unigram(np.zeros(4, np.float32)), [batch], task).metrics


def test_bits_per_byte_are_the_loss_of_the_targets_by_their_bytes():
    metrics = metrics_with((0, 1, 2, 5))
    assert metrics["loss"] == pytest.approx(math.log(4))
    assert metrics["bits_per_byte"] == pytest.approx(5 * 2 / (1 + 2 + 3 * 5))


def test_without_the_bytes_of_tokens_there_are_no_bits_per_byte():
    assert metrics_with(()).keys() == {"loss", "perplexity"}
