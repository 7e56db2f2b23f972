"""Effective ranks of matrices with known singular values."""

import numpy as np
import pytest

from mlxlab.extensions.weight_analysis.measure import rank_fraction, squared_singular_values


def matrix(values: list[float], shape: tuple[int, int]) -> np.ndarray:
    """A dense matrix with these singular values."""
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(size, size)))[0] for size in shape)
    middle = np.zeros(shape)
    np.fill_diagonal(middle, values)
    return (u @ middle @ v).astype(np.float32)


@pytest.mark.parametrize("shape", [(5, 9), (9, 5)])
def test_singular_values_are_those_of_numpy(shape):
    dense = matrix([5, 4, 2, 1, 0.1], shape)
    expected = np.linalg.svd(dense.astype(np.float64), compute_uv=False) ** 2
    np.testing.assert_allclose(squared_singular_values(dense), expected, rtol=1e-6)


def test_the_rank_is_the_number_of_values_that_hold_98_percent_of_the_squares():
    assert rank_fraction(np.array([98.0, 1.0, 1.0, 0.0])) == 1 / 4
    assert rank_fraction(np.array([97.0, 2.0, 1.0, 0.0])) == 2 / 4
    assert rank_fraction(squared_singular_values(np.eye(50))) == 49 / 50
    assert rank_fraction(np.zeros(4)) == 0.0
    two = squared_singular_values(matrix([3, 3, 0, 0, 0], (5, 7)))
    assert rank_fraction(two) == 2 / 5
