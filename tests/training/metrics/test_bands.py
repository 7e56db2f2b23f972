"""A regression that tells two groups of rows apart and little else."""

import numpy as np
import pytest

from mlxlab.training.metrics.bands import prediction_bands

RNG = np.random.default_rng(0)
TRUE = RNG.normal(150, 70, 90)
BANDS = np.concatenate([RNG.normal(100, 1, 40), RNG.normal(200, 1, 40), RNG.uniform(100, 200, 10)])


def test_predictions_near_two_values_are_two_bands():
    low, high = prediction_bands(BANDS[:, None], TRUE)
    assert (round(low), round(high)) == (100, 200)


@pytest.mark.parametrize(
    ("predictions", "targets"),
    [
        (BANDS, BANDS),  # as the true values are
        (BANDS[::4], TRUE[::4]),  # too few
        (np.full(90, 5.0), TRUE),
        (np.append(np.full(89, 5.0), 9.0), TRUE),  # one outlier is no band
        (np.full(90, np.nan), TRUE),
        (RNG.normal(size=90), TRUE),
        (RNG.lognormal(0, 2, 90), TRUE),
        (RNG.uniform(size=90), TRUE),
    ],
)
def test_other_predictions_are_not(predictions, targets):
    assert prediction_bands(predictions, targets) is None
