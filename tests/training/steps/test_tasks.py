"""Steps on labels and numbers: the laws of steps do not depend on the task."""

from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxlab.data.batch import pad_rows
from mlxlab.distillation.loss import DistillationLoss
from mlxlab.distillation.teachers import Teachers
from mlxlab.extensions.example_losses import files as example_losses
from mlxlab.extensions.example_losses.callback import ExampleLossLogger
from mlxlab.models.ensemble import Ensemble, FrozenModel
from mlxlab.training.device_batch import to_device
from mlxlab.training.losses.loss import BinaryCrossEntropyLoss, HuberLoss
from mlxlab.training.losses.task_loss import TaskLoss
from mlxlab.training.losses.weighted_sum import WeightedSumLoss
from mlxlab.training.optim.optimizers import adamw
from mlxlab.training.steps.optimized import OptimizedStep
from mlxlab.training.steps.step import PlainStep, weighted_sum
from support.models import (
    OPTIMIZED_STEP,
    TASKS,
    RandomBatches,
    Recorder,
    assert_close,
    assert_same,
    fit,
    make_model,
    make_run,
    make_trainer,
    step_scalars,
    weights_of,
)

OPTIMIZED = partial(OptimizedStep, **OPTIMIZED_STEP)


def model_of(kind, dropout=0.0, seed=0):
    return make_model(seed, dropout=dropout, classes=TASKS[kind].num_classes)


def task_loss(kind):
    return TaskLoss(0.0, "mse", 1.0, task=TASKS[kind])


def named_losses(kind):
    """A sum of the named losses of a task."""
    named = {
        "classification": task_loss(kind),
        "multi_label": BinaryCrossEntropyLoss("balanced", 0.1, class_counts=[4, 9, 1]),
        "regression": HuberLoss(0.3),
    }
    return WeightedSumLoss(
        {"auto": task_loss(kind), "named": named[kind]}, {"auto": 0.5, "named": 2.0}
    )


def distillation(kind):
    teachers = Teachers(Ensemble([FrozenModel(model_of(kind, seed=1))], kind=kind))
    settings = (0.5, 3.0, True, "forward", 0.0, None)
    return DistillationLoss(*settings, loaded_teachers=teachers, task=TASKS[kind])


def take_steps(step, kind, loss, dropout=0.0):
    """Losses of steps on batches of two sizes, and the weights after them."""
    model = model_of(kind, dropout)
    optimizer = adamw(0.01, [0.9, 0.999], 1e-8, learning_rate=1e-2)
    optimizer.init(model.trainable_parameters())
    run_step, results = step(model=model, loss=loss(kind), optimizer=optimizer), []
    model.train()
    for number, rows in enumerate([8, 5, 8]):
        mx.random.seed(number)
        results.append(
            step_scalars(run_step(to_device(RandomBatches(kind=kind).batch(np.arange(rows)))))
        )
    return results, weights_of(model)


@pytest.mark.parametrize("loss", [task_loss, named_losses, distillation])
@pytest.mark.parametrize("kind", ["multi_label", "regression"])
def test_every_step_is_the_plain_step(kind, loss):
    expected, weights = take_steps(partial(PlainStep, max_grad_norm=1.0), kind, loss, dropout=0.3)
    results, actual = take_steps(partial(OPTIMIZED, compile="always"), kind, loss, dropout=0.3)
    assert results == expected
    assert_same(actual, weights)
    expected, weights = take_steps(partial(PlainStep, max_grad_norm=1.0), kind, loss)
    results, actual = take_steps(partial(OPTIMIZED, accumulate=3), kind, loss)
    for got, scalars in zip(results, expected, strict=True):
        assert got == pytest.approx(scalars, rel=1e-4)
    assert_close(actual, weights, atol=1e-5)


def sums_and_gradients(kind, batch):
    """The loss of each row, and the gradient of their sum."""
    model = model_of(kind)
    rows = {}

    def total():
        value, _, per_example = weighted_sum(task_loss(kind), model, to_device(batch))
        rows.update(per_example)
        return value

    _, gradients = nn.value_and_grad(model, total)()
    return rows, dict(tree_flatten(gradients))


@pytest.mark.parametrize("kind", TASKS)
def test_rows_that_fill_up_a_batch_change_nothing(kind):
    batch = RandomBatches(kind=kind).batch(np.arange(5))
    rows, gradients = sums_and_gradients(kind, batch)
    padded_rows, padded_gradients = sums_and_gradients(kind, pad_rows(batch, 8))
    for name, values in rows.items():
        np.testing.assert_allclose(padded_rows[name], [*np.array(values), 0, 0, 0], rtol=1e-6)
    assert_close(padded_gradients, gradients, rtol=1e-5, atol=1e-7)


def test_a_label_of_weight_zero_is_neither_true_nor_false():
    batch = RandomBatches(kind="multi_label").batch(np.arange(8))
    unknown = batch.loss_weights == 0
    assert unknown.any()
    flipped = batch._replace(targets=np.where(unknown, 1 - batch.targets, batch.targets))
    (rows, gradients), (other_rows, other_gradients) = (
        sums_and_gradients("multi_label", b) for b in (batch, flipped)
    )
    np.testing.assert_array_equal(rows["weight"], (~unknown).sum(axis=1))
    np.testing.assert_array_equal(rows["loss"], other_rows["loss"])
    assert_same(gradients, other_gradients)


TERMS = {
    "multi_label": {"cross_entropy", "kl"},
    "regression": {"squared_error", "teacher_squared_error"},
}


@pytest.mark.parametrize("kind", TERMS)
def test_a_fit_logs_the_loss_of_every_example_and_learns(kind, tmp_path):
    run = make_run(model_of(kind), RandomBatches(kind=kind), tracker=Recorder())
    logger = ExampleLossLogger(1, 1024, folder=tmp_path)
    trainer = make_trainer(loss=distillation(kind), epochs=10, log_every=6)
    fit(trainer, run, [logger], task=TASKS[kind])
    rows = example_losses.read(tmp_path)
    targets = run.data.weights.reshape(22, -1).sum(axis=1)
    np.testing.assert_array_equal(rows["targets"], targets[rows["id"]])
    np.testing.assert_allclose(rows["sum"], rows["mean"] * rows["targets"], rtol=1e-5)
    lines = [line for _, line in run.context.tracker.lines if "train/loss" in line]
    mean = rows["sum"].sum() / rows["targets"].sum()
    assert lines[-1]["train/loss"] == pytest.approx(mean, rel=1e-5)
    assert lines[-1]["train/loss"] < lines[0]["train/loss"]
    assert TERMS[kind] <= rows.keys()
    assert {f"train/{name}" for name in TERMS[kind]} <= lines[-1].keys()
