"""Metrics of a classification and of its calibration, compared with scikit-learn's."""

import math

import numpy as np
import pytest
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve

from mlxlab.training.metrics.classification import (
    classification_metrics,
    confusion_matrix,
    count_classes,
    reliability,
)


def random_predictions(classes, rows=300, seed=0):
    """Probabilities with ties, float32 as those of a model, and random classes."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), rows).round(2) + 1e-3
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32), rng.integers(0, classes, rows)


@pytest.mark.parametrize("classes", [2, 4])
def test_classification_metrics_agree_with_scikit_learn(classes):
    p, y = random_predictions(classes)
    guess, average = p.argmax(axis=1), "binary" if classes == 2 else "weighted"
    metrics = classification_metrics(p, y)
    expected = oracle.precision_recall_fscore_support(y, guess, average=average, zero_division=0)[
        :3
    ]
    assert [metrics["precision"], metrics["recall"], metrics["f1"]] == pytest.approx(expected)
    assert metrics["accuracy"] == pytest.approx(oracle.accuracy_score(y, guess))
    assert metrics["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(y, guess))
    assert metrics["f1_macro"] == pytest.approx(oracle.f1_score(y, guess, average="macro"))
    assert metrics["f1_micro"] == pytest.approx(oracle.f1_score(y, guess, average="micro"))
    scores, hot = (p[:, 1], y) if classes == 2 else (p, np.eye(classes)[y])
    assert metrics["roc_auc"] == pytest.approx(oracle.roc_auc_score(hot, scores))
    assert metrics["average_precision"] == pytest.approx(
        oracle.average_precision_score(hot, scores)
    )
    assert metrics["log_loss"] == pytest.approx(oracle.log_loss(y, p), rel=1e-6)
    np.testing.assert_array_equal(
        confusion_matrix(guess, y, classes), oracle.confusion_matrix(y, guess)
    )


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_classes_without_an_example_do_not_count_in_unweighted_means():
    p, y = random_predictions(5)
    y[y == 3] = 1
    metrics, guess = classification_metrics(p, y), p.argmax(axis=1)
    occurring = [0, 1, 2, 4]
    assert metrics["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(y, guess))
    assert metrics["f1_macro"] == pytest.approx(
        oracle.f1_score(y, guess, average="macro", zero_division=0)
    )
    auc = oracle.roc_auc_score(np.eye(5)[y][:, occurring], p[:, occurring])
    assert metrics["roc_auc"] == pytest.approx(auc)


def test_targets_of_one_class_give_ratios_of_zero_and_a_nan_auc():
    metrics = classification_metrics(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 0]))
    assert (metrics["precision"], metrics["recall"], metrics["f1"]) == (0.0, 0.0, 0.0)
    assert math.isnan(metrics["roc_auc"])
    assert math.isnan(metrics["average_precision"])
    assert metrics["balanced_accuracy"] == metrics["f1_macro"] == 1.0


def test_the_calibration_error_is_the_mean_gap_of_bins():
    p, y = random_predictions(3, 1000)
    confidence, right = p.max(axis=1).astype(np.float64), p.argmax(axis=1) == y
    bins = reliability(confidence, right)
    true, predicted = calibration_curve(right, confidence, n_bins=15)
    np.testing.assert_allclose(bins.accuracy[bins.counts > 0], true)
    np.testing.assert_allclose(bins.confidence[bins.counts > 0], predicted)
    gaps = np.abs(true - predicted)
    assert bins.error == pytest.approx(np.average(gaps, weights=bins.counts[bins.counts > 0]))
    assert classification_metrics(p, y)["calibration_error"] == pytest.approx(bins.error, rel=1e-5)
    assert reliability(np.ones(5), np.ones(5, bool)).error == 0.0


def test_the_positive_class_may_be_the_first_one():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1], size=60)
    y = rng.integers(2, size=60)
    swapped = classification_metrics(p[:, ::-1].copy(), 1 - y)
    metrics = classification_metrics(p, y, positive=0)
    for name in ("precision", "recall", "f1", "roc_auc", "average_precision"):
        assert metrics[name] == pytest.approx(swapped[name])
    assert metrics["recall"] != pytest.approx(classification_metrics(p, y)["recall"])


def test_counts_of_classes_agree_with_scikit_learn():
    p, y = random_predictions(5)
    counts = count_classes(p.argmax(axis=1), y, 6)  # the last class has no example
    expected = oracle.precision_recall_fscore_support(
        y, p.argmax(axis=1), labels=range(6), zero_division=0
    )
    for counted, reference in zip(
        (counts.precision, counts.recall, counts.f1, counts.support), expected, strict=True
    ):
        np.testing.assert_allclose(counted, reference)
