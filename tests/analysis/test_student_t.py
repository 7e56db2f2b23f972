"""Student's t against SciPy."""

import math

import pytest

from mlxlab.analysis.comparison import t_quantile, t_tail_probability

DEGREES = [1, 2, 3, 4, 9, 14, 29, 1000]


@pytest.fixture(scope="module")
def scipy_t():
    from scipy import stats  # takes a second

    return stats.t


@pytest.mark.parametrize("degrees", DEGREES)
def test_tail_probabilities_equal_those_of_scipy(scipy_t, degrees):
    for t in (0, 1e-3, 0.1, 0.5, 1, 2.1, 5, 30, 1e4):
        assert t_tail_probability(t, degrees) == pytest.approx(scipy_t.sf(t, degrees), rel=1e-9)


@pytest.mark.parametrize("degrees", DEGREES)
def test_quantiles_equal_those_of_scipy(scipy_t, degrees):
    for probability in (0.5, 0.6, 0.9, 0.95, 0.975, 0.995, 0.99999):
        assert t_quantile(probability, degrees) == pytest.approx(
            scipy_t.ppf(probability, degrees), rel=1e-9, abs=1e-9
        )


def test_the_tail_beyond_infinity_is_empty():
    assert t_tail_probability(math.inf, 3) == 0
