"""Bootstrap: resampled metrics equal the metrics of the resampled examples, and intervals are those of theory."""

import numpy as np
import pytest

from mlxlab.data.batch import Task
from mlxlab.stats.bootstrap import interval, proportion_interval, resample
from mlxlab.training.metrics.labelled import Thresholds, labelled_metrics
from mlxlab.training.metrics.resampled import mean_of, resampled_metrics

ROWS = 60


def predictions(kind, classes):
    rng = np.random.default_rng(1)
    if kind == "regression":
        targets = rng.normal(size=ROWS)
        return Task(kind, 1), targets + rng.normal(size=ROWS), targets
    outputs = rng.dirichlet(np.ones(classes), ROWS).round(1)
    targets = rng.integers(0, classes, ROWS)
    if kind == "multi_label":
        targets = rng.integers(0, 2, (ROWS, classes)).astype(np.float32)
    return Task(kind, classes), outputs, targets


@pytest.mark.parametrize(
    ("kind", "classes", "names"),
    [
        ("classification", 2, {"accuracy", "f1", "f1_macro", "roc_auc", "log_loss"}),
        ("two classes", 2, {"accuracy", "f1", "f1_macro", "roc_auc", "log_loss"}),
        ("classification", 5, {"accuracy", "f1_macro", "roc_auc", "log_loss"}),
        ("multi_label", 4, {"accuracy", "f1_macro", "roc_auc", "log_loss"}),
        ("regression", 1, {"mae", "rmse", "r2"}),
    ],
)
def test_resampled_metrics_are_the_metrics_of_the_resampled_examples(kind, classes, names):
    thresholds: Thresholds = 0.3
    if kind == "two classes":
        kind, thresholds = "classification", np.array([0.3])
    task, outputs, targets = predictions(kind, classes)
    statistics = resampled_metrics(task, outputs, targets, thresholds)
    assert statistics.keys() == names
    rng = np.random.default_rng(2)
    drawn = rng.integers(ROWS, size=(5, ROWS))
    drawn[4] = 0  # one example again and again
    counts = np.stack([np.bincount(rows, minlength=ROWS) for rows in drawn]).astype(np.float64)
    for name, statistic in statistics.items():
        values = statistic(counts)
        for rows, value in zip(drawn[:4], values, strict=False):
            expected = labelled_metrics(task, outputs[rows], targets[rows], thresholds)[name]
            assert value == pytest.approx(expected), name
        assert name in ("roc_auc", "r2", "f1") or np.isfinite(values[4])


def test_the_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(0).normal(size=400)
    low, high = interval(resample({"mean": mean_of(values)}, 400)["mean"])
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)


def test_no_example_and_no_finite_value_give_no_interval():
    assert all(map(np.isnan, interval(resample({"mean": mean_of(np.zeros(0))}, 0)["mean"])))
    assert all(map(np.isnan, interval(np.full(3, np.nan))))


def test_the_interval_of_a_proportion_of_0_or_1_is_that_of_the_binomial_distribution():
    from scipy.stats import binomtest

    for right, count in ((262, 262), (0, 262), (1, 1)):
        exact = binomtest(right, count).proportion_ci(method="exact")
        assert proportion_interval(right / count, count) == pytest.approx((exact.low, exact.high))
    assert round(proportion_interval(1.0, 262)[0], 4) == 0.9860
