"""What the baselines of texts and tables share."""

from types import SimpleNamespace

import numpy as np

from mlxlab.data.batch import Task
from mlxlab.data.dataset import BaselineInputs
from mlxlab.models.baselines.predict import predict_rows


def test_the_constant_is_the_frequencies_or_the_mean_in_the_units_of_the_data():
    def predicted(targets, task):
        data = SimpleNamespace(
            baseline_inputs=BaselineInputs(), training_targets=np.array(targets), task=task
        )
        [constant] = predict_rows(data, lambda rows: {"a": ["x"] * len(rows)}, 2, 1)
        return constant.name, constant.valid.tolist(), constant.test.tolist()

    shares = [0.25, 0, 0.75]
    task = Task("classification", 3, ("a", "b", "c"))
    assert predicted([0, 2, 2, 2], task) == ("majority", [shares] * 2, [shares])
    task = Task("multi_label", 2, ("a", "b"))
    assert predicted([[1.0, 0], [1, 1]], task) == ("majority", [[1, 0.5]] * 2, [[1, 0.5]])
    task = Task("regression", 1, target_mean=100, target_deviation=20)
    assert predicted([-1.0, 2], task) == ("mean", [110, 110], [110])
