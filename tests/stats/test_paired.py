"""Paired t-tests: known values, and how often they find what is not there."""

import math

import numpy as np
import pytest

from mlxlab.stats.paired import paired_t_test, shared_rows_of


def test_the_interval_equals_a_published_one():
    # Student (1908), sleep gained by ten patients with each of two drugs: t = 4.0621, p = 0.002833 on 9 degrees.
    first = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    second = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    gain = paired_t_test(second - first)
    assert gain.mean == pytest.approx(1.58)
    assert (gain.low, gain.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)
    assert gain.p == pytest.approx(0.00283289, abs=1e-7)
    assert gain.verdict == "significant gain"


def test_shared_training_rows_widen_the_interval():
    differences = np.array([0.01, 0.03, 0.02, 0.025, 0.015])
    plain = paired_t_test(differences)
    corrected = paired_t_test(differences, shared_rows_of(5))
    assert corrected.mean == plain.mean
    ratio = (corrected.high - corrected.mean) / (plain.high - plain.mean)
    assert ratio == pytest.approx(math.sqrt((1 / 5 + 1 / 4) * 5))


def test_false_positives_are_as_frequent_as_the_level_says():
    rng = np.random.default_rng(0)
    claims = [
        paired_t_test(rng.normal(size=5)).verdict != "no significant gain" for _ in range(2000)
    ]
    assert 0.035 < np.mean(claims) < 0.065
