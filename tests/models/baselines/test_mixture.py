"""The mixture of readings, and linear models as arrays."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mlxlab.models.baselines.mixture import fit_mixture, sharpen
from mlxlab.models.baselines.readers import fit_linear

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


@pytest.mark.parametrize("kind", ["classification", "multi_label"])
def test_sharpened_probabilities_are_those_of_scaled_logits(kind):
    logits = RNG.normal(size=(5, 3))

    def probabilities(logits):
        if kind == "multi_label":
            return 1 / (1 + np.exp(-logits))
        powers = np.exp(logits)
        return powers / powers.sum(axis=1, keepdims=True)

    expected = probabilities(2 * logits)
    np.testing.assert_allclose(sharpen(probabilities(logits), 2.0, kind), expected, rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_linear_model_gives_the_probabilities_of_scikit_learn(classes):
    features = RNG.normal(size=(200, 4)).astype(np.float32)
    targets = (features[:, 0] > 0).astype(int) + (classes > 2) * (features[:, 1] > 1)
    logits = fit_linear(features, targets, "classification", classes + 1)(features)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    order = np.random.default_rng(0).permutation(200)
    peer = LogisticRegression(max_iter=300).fit(features[order].astype(float), targets[order])
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        probabilities[:, :classes], peer.predict_proba(features), rtol=1e-4, atol=1e-6
    )
    assert probabilities[:, classes].max() < 1e-6


def test_a_class_that_no_row_has_and_labels_of_one_value_are_fitted():
    features = RNG.normal(size=(50, 2))
    alone = fit_linear(features, np.zeros(50, int), "classification", 2)(features)
    assert (alone.argmax(axis=1) == 0).all()
    labels = np.stack([features[:, 0] > 0, np.zeros(50)], axis=1)
    logits = fit_linear(features, labels, "multi_label", 2)(features)
    assert ((logits[:, 0] > 0) == labels[:, 0]).mean() > 0.9
    assert (logits[:, 1] < 0).all()
