"""Metrics of a regression, compared with those of scikit-learn and SciPy."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn import metrics as oracle

from mlxlab.training.metrics.labelled import regression_metrics


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
