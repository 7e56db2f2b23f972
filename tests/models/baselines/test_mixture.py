"""The mixture of readings."""

import numpy as np

from mlxlab.models.baselines.mixture import fit_mixture

RNG = np.random.default_rng(0)
CLASSES = RNG.integers(0, 3, 300)
RIGHT = np.eye(3)[CLASSES] * 0.4 + 0.2  # The right class at 0.6, though it is certain.
NOISE = RNG.dirichlet(np.ones(3), 300)


def test_a_reader_that_is_too_careful_is_sharpened_and_preferred_to_noise():
    mixture = fit_mixture([RIGHT, NOISE], CLASSES, "classification")
    assert mixture.sharpness[0] > 2
    assert mixture.sharpness[1] == 0.4
    assert mixture.shares[0] > 0.95
    np.testing.assert_allclose(mixture.shares.sum(), 1)


def test_two_readers_with_errors_of_their_own_are_mixed():
    targets = RNG.normal(size=400)
    outputs = [(targets + RNG.normal(size=400))[:, None] for _ in range(2)]
    mixture = fit_mixture(outputs, targets, "regression")
    assert (mixture.shares > 0.3).all()
    mixed = sum(share * each for share, each in zip(mixture.shares, outputs, strict=True))
    alone = min(np.square(each[:, 0] - targets).mean() for each in outputs)
    assert np.square(mixed[:, 0] - targets).mean() < 0.7 * alone


def test_a_single_row_does_not_decide():
    targets = np.zeros(50)
    good = np.full((50, 1), 0.30)
    good_but_once = np.full((50, 1), 0.29)
    good_but_once[7] = 3.0
    mixture = fit_mixture([good, good_but_once], targets, "regression")
    assert 0.2 < mixture.shares[1] < 0.5
