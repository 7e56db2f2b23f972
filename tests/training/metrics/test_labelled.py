"""Metrics of labels and of numbers, compared with scikit-learn's and SciPy's; thresholds chosen by F1."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn import metrics as oracle

from mlxlab.training.metrics.classification import best_threshold, precision_recall
from mlxlab.training.metrics.labelled import multi_label_metrics, regression_metrics


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    p = rng.random((200, 4)).round(2)
    return p, (rng.random((200, 4)) < 0.3 * p + 0.2).astype(np.float32)


def test_multi_label_metrics_agree_with_scikit_learn(predictions):
    p, y = predictions
    metrics, guess = multi_label_metrics(p, y), p >= 0.5
    assert metrics["accuracy"] == pytest.approx(1 - oracle.hamming_loss(y, guess))
    assert metrics["exact_match"] == pytest.approx(oracle.accuracy_score(y, guess))
    assert metrics["f1_macro"] == pytest.approx(oracle.f1_score(y, guess, average="macro"))
    assert metrics["f1_micro"] == pytest.approx(oracle.f1_score(y, guess, average="micro"))
    assert metrics["roc_auc"] == pytest.approx(oracle.roc_auc_score(y, p))
    assert metrics["average_precision"] == pytest.approx(oracle.average_precision_score(y, p))
    p = p.clip(0.01, 0.99)
    expected = [oracle.log_loss(y[:, i], p[:, i]) for i in range(4)]
    assert multi_label_metrics(p, y)["log_loss"] == pytest.approx(np.mean(expected))


def test_labels_that_never_occur_do_not_count(predictions):
    p, y = predictions
    y[:, 2], p[:, 2] = 0, 0.1
    metrics = multi_label_metrics(p, y)
    rest = [0, 1, 3]
    assert metrics["f1_macro"] == pytest.approx(
        oracle.f1_score(y, p >= 0.5, average="macro", zero_division=np.nan)
    )
    assert metrics["roc_auc"] == pytest.approx(oracle.roc_auc_score(y[:, rest], p[:, rest]))
    assert metrics["average_precision"] == pytest.approx(
        oracle.average_precision_score(y[:, rest], p[:, rest])
    )


def test_the_best_threshold_has_the_greatest_f1_of_all(predictions):
    p, y = predictions
    for scores, positive in zip(p.T, y.T > 0, strict=True):
        threshold = best_threshold(scores, positive)
        f1 = oracle.f1_score(positive, scores >= threshold)
        assert f1 == pytest.approx(
            max(oracle.f1_score(positive, scores >= t) for t in np.unique(scores))
        )
        assert 0 < threshold < 1


def test_a_threshold_that_all_scores_reach_is_half_the_lowest_one_and_0_for_a_score_of_0():
    assert best_threshold(np.array([0.25, 0.75, 0.5]), np.array([True, True, False])) == 0.125
    assert best_threshold(np.array([0.0, 0.75, 0.0]), np.array([True, True, True])) == 0
    tiny = np.finfo(np.float32).smallest_subnormal
    assert best_threshold(np.array([tiny, 0.75]), np.array([True, True])) == tiny


def test_regression_metrics_agree_with_scikit_learn_and_scipy():
    rng = np.random.default_rng(0)
    targets = (rng.normal(150, 77, 300)).round(-1)  # with ties
    values = (targets + rng.normal(0, 50, 300)).round(-1)
    metrics = regression_metrics(values, targets)
    assert metrics["mae"] == pytest.approx(oracle.mean_absolute_error(targets, values))
    assert metrics["rmse"] == pytest.approx(oracle.root_mean_squared_error(targets, values))
    assert metrics["r2"] == pytest.approx(oracle.r2_score(targets, values))
    assert metrics["spearman"] == pytest.approx(spearmanr(targets, values).statistic)


def test_constant_values_and_targets():
    ramp, constant = np.arange(5.0), np.full(5, 3.7)
    assert math.isnan(regression_metrics(constant, ramp)["spearman"])
    assert regression_metrics(constant, ramp)["r2"] == pytest.approx(
        oracle.r2_score(ramp, constant)
    )
    assert regression_metrics(ramp, constant)["r2"] == oracle.r2_score(constant, ramp) == 0.0
    assert regression_metrics(constant, constant)["r2"] == 1.0


def test_no_example_and_values_of_a_diverged_model_give_no_warning():
    assert all(map(math.isnan, regression_metrics(np.zeros(0), np.zeros(0)).values()))
    assert not math.isfinite(
        regression_metrics(np.array([np.inf, 1.0]), np.array([0.0, 1.0]))["rmse"]
    )
    assert math.isnan(regression_metrics(np.array([1.0]), np.array([1.0]))["r2"])


def test_the_precision_recall_curve_agrees_with_scikit_learn(predictions):
    scores, positive = predictions[0][:, 0], predictions[1][:, 0] > 0
    precision, recall = precision_recall(scores, positive)
    expected_precision, expected_recall, _ = oracle.precision_recall_curve(positive, scores)
    np.testing.assert_allclose(precision[::-1], expected_precision[:-1])
    np.testing.assert_allclose(recall[::-1], expected_recall[:-1])
