"""The networks of a table: what they read of a row, what each fold learns from, and how readings are mixed."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxlab.data.batch import FOLDS
from mlxlab.errors import ConfigError, DataError
from mlxlab.models.build import build_model
from mlxlab.models.tabular import Features, sharpen, to_logits, to_outputs
from mlxlab.training.device_batch import DeviceBatch
from mlxlab.training.losses.task_loss import TaskLoss
from support.models import TASK

NUMBER = {"edges": [-1.0, 0.0, 1.0], "mean": 0.0, "deviation": 1.0, "missing": True}
CATEGORY = {"categories": 3, "missing": False}
NODE = {
    "_target_": "mlxlab.models.tabular.Tabular",
    "columns": [NUMBER, CATEGORY],
    "hidden_size": 8,
    "num_layers": 2,
    "code_size": 3,
    "members": 2,
    "folds": 3,
    "dropout": 0.0,
    "snapshots": [0.5],
}
CELLS = mx.array([[0.5, 1], [float("nan"), 2], [3.0, -1], [-9.0, float("nan")], [0.0, 0], [1.0, 1]])
TARGETS = mx.array([0, 1, 1, 0, 1, 0])
ROWS = mx.ones((6, 1), dtype=mx.int32)


def new_model(kind="classification", outputs=2, **changes):
    return build_model(NODE | changes, kind=kind, vocab_size=4, num_classes=outputs, seed=0)


def test_a_number_is_squeezed_and_coded_by_bins_and_a_category_is_a_one_hot():
    features, [numbers, categories] = Features([NUMBER, CATEGORY])(CELLS[:4])
    squeezed = [value / np.sqrt(1 + (value / 3) ** 2) for value in (0.5, 3.0, -9.0)]
    np.testing.assert_allclose(features[:, 0], [squeezed[0], 0, *squeezed[1:]], rtol=1e-6)
    assert features[:, 1].tolist() == [0, 1, 0, 0]  # missing
    assert features[:, 2:].tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert numbers[:, 0].tolist() == [[1, 0.5, 0], [0, 0, 1], [1, 2, 0], [-1, 0, 0]]
    assert categories[:, 0].tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]]


def test_columns_and_cells_that_do_not_fit_are_refused():
    """A stranger's run may hold them."""
    with pytest.raises(ConfigError, match=r"model\.columns.*categories"):
        Features([{"edges": [0.0, 1.0], "missing": False}])
    with pytest.raises(DataError, match="expected 2 cells a row, got 1"):
        Features([NUMBER, CATEGORY])(CELLS[:, :1])


def test_a_row_is_read_alike_in_any_batch():
    model = new_model()
    model.eval()
    together = model(CELLS, ROWS)
    alone = mx.concatenate([model(CELLS[row : row + 1], ROWS[:1]) for row in range(6)])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def gradients(targets, folds):
    model = new_model()
    model.train()
    loss = TaskLoss(0.0, "mse", 1.0, task=TASK)
    weights = mx.ones((6,))
    batch = DeviceBatch(CELLS, ROWS, targets, weights, mx.arange(6), {FOLDS: folds})
    value_and_grad = nn.value_and_grad(model, lambda: loss(model, batch).total.sum())
    return dict(tree_flatten(value_and_grad()[1]))


def test_a_network_does_not_learn_from_the_rows_of_its_fold():
    folds = mx.array([0, 1, 2, 0, 1, 2])
    before = gradients(TARGETS, folds)
    after = gradients(mx.where(folds == 1, 1 - TARGETS, TARGETS), folds)
    for path, gradient in before.items():
        changed = [bool(mx.any(gradient[fold] != after[path][fold])) for fold in range(3)]
        assert changed == [True, False, True], path


@pytest.mark.parametrize("kind", ["classification", "multi_label", "regression"])
def test_an_evaluation_is_the_mixture_of_what_each_reader_says(kind):
    outputs = 1 if kind == "regression" else 2
    model = new_model(kind, outputs)
    head = model.head
    head.linear.update({"weight": mx.ones((head.features(CELLS).shape[1], outputs)) * 0.1})
    head.snapshots[0].update(new_model(kind, outputs, dropout=0.5).head.network.parameters())
    model.eval()
    alone = model(CELLS, ROWS)
    shares = mx.array([0.25, 0.5, 0.25])
    head.update({"shares": shares, "sharpness": mx.array([1.0, 2.0, 0.5])})

    features, codes = head._features(CELLS)
    snapshot = to_outputs(head.snapshots[0](features, codes), kind).mean(axis=(0, 1))
    network = sharpen(to_outputs(alone, kind), mx.array(2.0), kind)
    linear = sharpen(to_outputs(head.linear(features), kind), mx.array(0.5), kind)
    expected = to_logits(0.25 * snapshot + 0.5 * network + 0.25 * linear, kind)
    np.testing.assert_allclose(model(CELLS, ROWS), expected, rtol=1e-4, atol=1e-5)
