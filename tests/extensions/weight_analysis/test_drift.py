"""Drift of matrices that were moved or rotated by a known amount."""

import numpy as np
import pytest

from mlxlab.extensions.weight_analysis.measure import drift, rotate_onto, row_cosines

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(30, 6), (6, 30), (6, 6)])
def test_a_rotation_is_found(shape):
    before = RNG.normal(size=shape) + 1.0  # not centred
    rotation = np.linalg.qr(RNG.normal(size=(shape[1], shape[1])))[0]
    now = before @ rotation
    assert drift([(before, now)]).relative > 0.5
    aligned = drift([(rotate_onto(before, now), now)])
    assert aligned.relative < 1e-10
    np.testing.assert_allclose(aligned.cosines, 1.0)


@pytest.mark.parametrize("shape", [(30, 6), (6, 30)])
def test_no_other_rotation_is_nearer(shape):
    before, now = RNG.normal(size=shape), RNG.normal(size=shape)
    u, _, v = np.linalg.svd(before.T @ now)
    np.testing.assert_allclose(
        np.linalg.norm(rotate_onto(before, now) - now), np.linalg.norm(before @ u @ v - now)
    )


def test_relative_change_is_that_of_all_matrices_together():
    before = [np.full((2, 2), 3.0), np.full((1, 4), 2.0)]
    now = [before[0] + 1, before[1]]
    assert drift(zip(before, now, strict=True)).relative == pytest.approx(np.sqrt(4 / (36 + 16)))


def test_cosines_are_those_of_rows_without_rows_of_zeros():
    before = np.array([[1.0, 0], [1, 0], [1, 0], [0, 0]])
    now = np.array([[2.0, 0], [0, 5], [-1, 0], [1, 0]])
    np.testing.assert_allclose(row_cosines(before, now), [1, 0, -1])


def test_weights_that_were_zero_have_no_relative_change():
    assert np.isnan(drift([(np.zeros((2, 2)), np.ones((2, 2)))]).relative)
