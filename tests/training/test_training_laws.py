"""Laws of losses, steps, schedules and metrics."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from benchmarks.config import read_config
from mlx.utils import tree_map

from mlxlab.config.instantiate import instantiate
from mlxlab.errors import ConfigError, DivergenceError
from mlxlab.training.device_batch import DeviceBatch, to_device
from mlxlab.training.losses.loss import (
    CrossEntropyLoss,
    FocalLoss,
    WeightedCrossEntropyLoss,
    cross_entropy,
)
from mlxlab.training.optim.optimizers import adamw, flatten_arrays
from mlxlab.training.optim.schedules import cosine, linear, wsd
from mlxlab.training.steps.optimized import OptimizedStep
from mlxlab.training.steps.step import PlainStep, weighted_sum
from support.models import (
    OPTIMIZED_STEP,
    FunctionLoss,
    NoOpCallback,
    RandomBatches,
    assert_same,
    fit,
    make_model,
    make_run,
    make_trainer,
    step_scalars,
    weights_of,
)


def a_batch(rows: int = 5) -> DeviceBatch:
    return to_device(RandomBatches().batch(np.arange(rows)))


def test_smoothing_is_one_minus_e_of_the_target_and_e_of_the_mean():
    logits = mx.random.normal((7, 3), key=mx.random.key(1))
    targets = mx.array([0, 1, 2, 0, 1, 2, 0])
    log_p = np.array(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    expected = -0.9 * log_p[np.arange(7), np.array(targets)] - 0.1 * log_p.mean(axis=-1)
    np.testing.assert_allclose(np.array(cross_entropy(logits, targets, 0.1)), expected, rtol=1e-5)


def test_focal_weighs_class_one_by_alpha():
    model, batch = make_model(dropout=0.0), a_batch()
    p = np.array(mx.softmax(model(batch.tokens, batch.segment_ids), axis=-1))[
        np.arange(5), np.array(batch.targets)
    ]
    a = np.where(np.array(batch.targets) == 1, 0.25, 0.75)
    np.testing.assert_allclose(
        np.array(FocalLoss(0.25, 2.0, 0.0)(model, batch).total),
        -a * (1 - p) ** 2 * np.log(p),
        rtol=1e-4,
    )


def test_balanced_weights_are_n_over_classes_times_count():
    loss = WeightedCrossEntropyLoss("balanced", 0.0, class_counts=[549, 342])
    np.testing.assert_allclose(np.array(loss.class_weights), [0.8115, 1.3026], atol=1e-4)
    with pytest.raises(ConfigError, match="expected 2 weights, one per class, got 3"):
        WeightedCrossEntropyLoss([1.0, 2.0, 3.0], 0.0, class_counts=[1, 1])


def test_a_target_of_weight_zero_is_ignored_even_if_its_loss_is_nan():
    model, batch = make_model(dropout=0.0), a_batch()
    less = batch._replace(loss_weights=mx.array([1.0, 1.0, 0.0, 0.0, 0.0]))
    spoiled = FunctionLoss(
        lambda m, b: mx.where(b.loss_weights == 0, float("nan"), CrossEntropyLoss(0.0)(m, b).total)
    )
    total, weight, _ = weighted_sum(spoiled, model, less)
    short, *_ = weighted_sum(CrossEntropyLoss(0.0), model, a_batch(2))
    assert (weight.item(), total.item()) == (2.0, pytest.approx(short.item(), rel=1e-6))


@pytest.mark.parametrize(
    "schedule", [partial(cosine, 10, 0.1), partial(linear, 10, 0.1), partial(wsd, 10, 0.2, 0.1)]
)
def test_schedules_have_their_values_at_start_warmup_and_end(schedule):
    rate = schedule(peak=2.0, steps=100)
    at = [rate(mx.array(step)).item() for step in (0, 9, 10, 100, 200)]
    np.testing.assert_allclose(at, [0.2, 2.0, 2.0, 0.2, 0.2], rtol=1e-5)


@pytest.mark.parametrize(
    "schedule", [partial(cosine, 0, 0.0), partial(linear, 0.1, 0.0), partial(wsd, 0, 0.2, 0.0)]
)
@pytest.mark.parametrize("steps", [1, 2, 5, 1000])
def test_every_step_of_a_schedule_trains_and_only_the_step_after_the_last_has_the_rate_0(
    schedule, steps
):
    rate = schedule(peak=1.0, steps=steps)
    rates = [rate(mx.array(step)).item() for step in range(steps + 1)]
    assert min(rates[:-1]) > 0
    assert rates[-1] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion", "sgd", "muon"])
def test_every_step_uses_the_learning_rate_of_the_schedule(name):
    rates = []

    class Rates(NoOpCallback):
        def on_step(self, context, state, result):
            rates.append([o.learning_rate.item() for o in state.optimizer.optimizers])

    trainer = make_trainer(optimizer=shipped_optimizer(name), log_every=1)
    run = fit(trainer, callbacks=[Rates()])
    schedule = trainer.lr_schedule(run.state)
    expected = [schedule(mx.array(step)).item() for step in range(run.state.progress.step)]
    assert rates == [[rate] * len(rates[0]) for rate in expected]
    logged = [metrics["train/learning_rate"] for _, metrics in run.state.history.curve]
    assert logged == expected


def shipped_optimizer(name, **changes):
    return instantiate(read_config(f"trainer/optimizer/{name}") | changes)


def test_clipping_bounds_the_norm_and_keeps_the_direction():
    model, captured = make_model(dropout=0.0), {}

    class Spy:
        state: dict = {}

        def apply_gradients(self, gradients, parameters):
            captured.update(flatten_arrays(gradients))
            return parameters

    def norm_and_flat(clip):
        step = PlainStep(clip, model=model, loss=CrossEntropyLoss(0.0), optimizer=Spy())
        logged = step_scalars(step(a_batch()))["grad_norm"]
        return logged, np.concatenate([np.array(g).ravel() for g in captured.values()])

    logged, free = norm_and_flat(None)
    again, clipped = norm_and_flat(logged / 10)
    _, untouched = norm_and_flat(logged * 10)
    assert logged == again == pytest.approx(np.linalg.norm(free), rel=1e-5)
    np.testing.assert_allclose(clipped * 10, free, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(untouched, free)


def test_adamw_has_bias_correction():
    model = make_model()
    optimizer = adamw(0.0, [0.9, 0.999], 1e-8, learning_rate=0.1)
    before = weights_of(model)["out.weight"]
    optimizer.update(model, tree_map(mx.ones_like, model.parameters()))
    moved = before - weights_of(model)["out.weight"]
    np.testing.assert_allclose(moved, 0.1, rtol=1e-4)  # without it: 0.316


ACCUMULATING = partial(OptimizedStep, **OPTIMIZED_STEP | {"accumulate": 3})


@pytest.mark.parametrize("step", [partial(PlainStep, max_grad_norm=1.0), ACCUMULATING])
@pytest.mark.parametrize("source", ["loss", "gradient"])
def test_a_nonfinite_step_or_micro_batch_changes_neither_weights_nor_optimizer(source, step):
    model = make_model()
    optimizer = make_run(model).state.optimizer

    def loss(m, b):
        values = CrossEntropyLoss(0.0)(m, b).total
        if not poisoned:
            return values
        if source == "loss":
            return mx.where(b.example_ids == 1, float("nan"), values)
        return values + mx.sqrt(m.out.weight.sum() * 0) * 1.0  # finite, with an infinite gradient

    poisoned = False
    take_step = step(model=model, loss=FunctionLoss(loss), optimizer=optimizer)
    assert take_step(a_batch()).finite
    weights = weights_of(model)
    state = {name: np.array(leaf) for name, leaf in flatten_arrays(optimizer.state).items()}
    poisoned = True
    assert not take_step(a_batch()).finite
    assert_same(weights_of(model), weights)
    assert_same(flatten_arrays(optimizer.state), state)


def test_consecutive_nonfinite_steps_end_the_run_with_exit_code_78():
    def nan(m, b):
        return CrossEntropyLoss(0.0)(m, b).total * float("nan")

    run = make_run()
    with pytest.raises(DivergenceError, match="3 consecutive steps"):
        fit(make_trainer(loss=FunctionLoss(nan)), run)
    assert run.state.progress.step == 3
    assert DivergenceError.exit_code == 78
