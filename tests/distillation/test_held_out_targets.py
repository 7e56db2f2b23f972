"""What a mixture said of its training rows, as the soft targets of a student."""

import numpy as np
import pytest

from mlxlab.data.batch import Batch
from mlxlab.distillation.teachers import VALUES, HeldOutTargets, Teachers
from mlxlab.errors import DataError
from mlxlab.models.baselines.mixture import OutOfFold


def batch_of(ids, targets):
    ids = np.array(ids)
    cells = np.zeros((len(ids), 3), np.float32)
    return Batch(cells, np.ones((len(ids), 1)), np.array(targets), np.ones(len(ids)), ids)


@pytest.mark.parametrize("kind", ["classification", "multi_label", "regression"])
def test_the_rows_of_a_batch_are_found_by_their_ids(kind):
    outputs = np.array([[0.9], [0.2], [0.6]], np.float32)
    targets = np.array([1, 0, 1])
    if kind == "classification":
        outputs = np.concatenate([1 - outputs, outputs], axis=1)
    said = OutOfFold(np.array([30, 10, 20]), targets, outputs)
    teachers = Teachers(held_out=HeldOutTargets(said, kind))
    values = teachers.cached(batch_of([20, 30], [1, 1]), None)[VALUES]
    expected = outputs[[2, 0]]
    if kind == "classification":
        expected = np.log(expected)
    if kind == "multi_label":
        expected = np.log(expected / (1 - expected))
    np.testing.assert_allclose(values, expected, rtol=1e-4)

    # Rows with the id -1 fill up a batch.
    filled = teachers.cached(batch_of([20, 30, -1], [1, 1, 0]), None)[VALUES]
    np.testing.assert_allclose(filled[:2], expected, rtol=1e-4)
    held_out = teachers.held_out
    assert held_out.soft_targets(batch_of([20, 40], [1, 1])) == {}
    assert held_out.soft_targets(batch_of([20, 10], [1, 1])) == {}
    with pytest.raises(DataError, match="a prediction of each training row"):  # without a model
        teachers.cached(batch_of([20, 40], [1, 1]), None)
