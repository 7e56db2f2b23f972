"""Boosted trees and linear models as arrays predict what scikit-learn's do."""

import mlx.core as mx
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mlxlab.models.baselines.scikit_learn import fit_boosting, fit_linear, trees_of
from mlxlab.models.tabular import TreeReader, to_outputs

RNG = np.random.default_rng(0)
KINDS = {
    "two_classes": ("classification", 2),
    "three_classes": ("classification", 3),
    "a_class_without_rows": ("classification", 4),
    "one_class": ("classification", 2),
    "labels": ("multi_label", 3),
    "numbers": ("regression", 1),
}


def rows_of(case):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 5)).astype(np.float32).round(1)
    score = features[:, 0] + features[:, 1] * features[:, 2]
    match case:
        case "numbers":
            return features, score.astype(np.float32)
        case "labels":
            labels = [score > 0, np.zeros(300), np.ones(300)]
            return features, np.stack(labels, axis=1).astype(np.float32)
        case "one_class":
            return features, np.ones(300, np.int32)
        case "two_classes":
            return features, (score > 0).astype(np.int32)
    classes = np.digitize(score, [-0.5, 0.5])
    return features, classes + (classes > 0) * (case == "a_class_without_rows")


def read(trees, features, outputs):
    reader = TreeReader(outputs)
    arrays = trees._asdict().items()
    reader.update({name: mx.array(each.astype(np.float32)) for name, each in arrays})
    return reader(mx.array(features))


@pytest.mark.parametrize("case", KINDS)
def test_the_arrays_predict_what_the_estimators_do(case):
    kind, outputs = KINDS[case]
    features, targets = rows_of(case)
    model = fit_boosting(features, targets, kind, outputs)
    mine = to_outputs(read(trees_of(model), features, outputs), kind)
    np.testing.assert_allclose(
        np.array(mine), model(features).reshape(len(features), -1), atol=1e-6
    )


def test_arrays_that_point_outside_of_a_tree_are_read_within_it():
    features, targets = rows_of("numbers")
    trees = trees_of(fit_boosting(features, targets, "regression", 1))
    hostile = trees._replace(feature=trees.feature + 1e9, left=trees.left - 1e9)
    assert np.isfinite(np.array(read(hostile, features, 1))).all()


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
