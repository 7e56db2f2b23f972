"""Losses of every kind of task: their formulas, one value per target, and which loss fits which task."""

import mlx.core as mx
import numpy as np
import pytest
from benchmarks.config import read_config

from mlxlab.backend.ops.cross_entropy import binary_cross_entropy
from mlxlab.config.paths import conf_dir
from mlxlab.errors import ConfigError
from mlxlab.files.yaml_file import read_yaml
from mlxlab.training.device_batch import to_device
from mlxlab.training.losses.loss import (
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    HuberLoss,
    SquaredErrorLoss,
    huber,
)
from mlxlab.training.losses.task_loss import FITTING, TaskLoss, refuse_misfit
from support.models import TASKS, RandomBatches, make_model

LOSSES = {  # of each kind of task: the named loss that `auto` stands for
    "classification": CrossEntropyLoss(0.0),
    "multi_label": BinaryCrossEntropyLoss(None, 0.0, class_counts=[1, 1, 1]),
    "regression": SquaredErrorLoss(),
}


def model_of(kind):
    return make_model(dropout=0.0, classes=TASKS[kind].num_classes)


def batch_of(kind, rows=8):
    return to_device(RandomBatches(kind=kind).batch(np.arange(rows)))


def task_loss(kind, **changes):
    return TaskLoss(
        **({"label_smoothing": 0.0, "regression": "mse", "huber_delta": 1.0} | changes),
        task=TASKS[kind],
    )


@pytest.mark.parametrize("kind", TASKS)
def test_the_loss_of_a_task_is_its_named_loss_bit_for_bit_with_one_float32_value_per_target(kind):
    model, batch = model_of(kind), batch_of(kind)
    total, terms = task_loss(kind)(model, batch)
    assert (total.shape, total.dtype, terms) == (batch.targets.shape, mx.float32, {})
    np.testing.assert_array_equal(total, LOSSES[kind](model, batch).total)
    model.set_dtype(mx.bfloat16)
    assert task_loss(kind)(model, batch).total.dtype == mx.float32


def test_binary_cross_entropy_equals_its_formula_with_smoothing_and_weights():
    rng = np.random.default_rng(0)
    z, y, w = (
        rng.normal(size=(5, 3)).astype(np.float32) * 4,
        rng.integers(0, 2, (5, 3)),
        np.array([0.5, 1.0, 3.0]),
    )
    p, smooth = 1 / (1 + np.exp(-z.astype(np.float64))), 0.9 * y + 0.05
    expected = -w * smooth * np.log(p) - (1 - smooth) * np.log(1 - p)
    values = binary_cross_entropy(
        mx.array(z), mx.array(y.astype(np.float32)), 0.1, mx.array(w.astype(np.float32))
    )
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_binary_cross_entropy_is_exact_for_extreme_logits_and_has_its_slope_at_zero():
    logits, targets = mx.array([60.0, -60.0, 1e4, -1e4, 0.0]), mx.array([1.0, 0.0, 0.0, 1.0, 1.0])
    values = np.array(binary_cross_entropy(logits, targets))
    np.testing.assert_allclose(values, [np.exp(-60), np.exp(-60), 1e4, 1e4, np.log(2)], rtol=1e-5)
    slopes = mx.grad(lambda z: binary_cross_entropy(z, targets).sum())(logits)
    np.testing.assert_allclose(slopes, [0, 0, 1, -1, -0.5], atol=1e-6)


def test_balanced_positive_weights_give_every_label_the_same_weight():
    loss = BinaryCrossEntropyLoss("balanced", 0.0, class_counts=[10, 40, 0])
    np.testing.assert_allclose(loss.positive_weights, [50 / 30, 50 / 120, 50 / 3])
    with pytest.raises(
        ConfigError, match="positive_weights: expected 3 weights, one per class, got 2"
    ):
        BinaryCrossEntropyLoss([1.0, 2.0], 0.0, class_counts=[1, 1, 1])


def test_huber_is_half_the_squared_error_up_to_delta_and_linear_beyond():
    errors = np.array([-3.0, -0.5, 0.0, 0.5, 2.0])
    expected = [0.5 * e * e if abs(e) <= 0.5 else 0.5 * (abs(e) - 0.25) for e in errors]
    np.testing.assert_allclose(
        huber(mx.array(errors[:, None]), mx.zeros(5), 0.5), expected, rtol=1e-6
    )
    slopes = mx.grad(lambda z: huber(z, mx.zeros(5), 0.5).sum())(mx.array(errors[:, None]))
    np.testing.assert_allclose(slopes[:, 0], [-0.5, -0.5, 0, 0.5, 0.5], atol=1e-6)
    model, batch = model_of("regression"), batch_of("regression")
    chosen = task_loss("regression", regression="huber", huber_delta=0.2)(model, batch).total
    np.testing.assert_array_equal(chosen, HuberLoss(0.2)(model, batch).total)


@pytest.mark.parametrize(
    ("option", "kind", "options"),
    [
        ("focal", "regression", "auto, mse, huber"),
        ("cross_entropy", "multi_label", "auto, binary_cross_entropy"),
        ("huber", "classification", "auto, cross_entropy, weighted, focal"),
    ],
)
def test_a_loss_of_another_task_is_refused_with_those_that_fit(option, kind, options):
    node = read_config(f"trainer/loss/{option}")
    message = rf"^trainer\.loss: expected a loss for the task {kind} \({options}\), got "
    with pytest.raises(ConfigError, match=message):
        refuse_misfit(node, kind)
    target = "mlxlab.training.losses.weighted_sum.WeightedSumLoss"
    with pytest.raises(ConfigError, match=r"^trainer\.loss\.losses\.a: "):
        refuse_misfit({"_target_": target, "losses": {"a": node}}, kind)


def test_the_losses_of_conf_that_fit_some_tasks_only_are_listed_and_fit_them():
    for option, (target, kinds) in FITTING.items():
        assert (
            read_yaml(conf_dir() / "trainer" / "loss" / f"{option}.yaml").values["_target_"]
            == target
        )
        for kind in kinds:
            refuse_misfit({"_target_": target}, kind)
    refuse_misfit({"_target_": "my_losses.Own"}, "regression")
