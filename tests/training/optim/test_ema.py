"""EMA of the weights: its formula, its use in evaluation and checkpoints, resume."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.manifest import CorruptCheckpointError
from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.training.checkpointer import Checkpointer, final_state_digest, saved_arrays
from mlxlab.training.evaluate import evaluate
from mlxlab.training.steps.optimized import OptimizedStep
from support.models import (
    OPTIMIZED_STEP,
    TASK,
    FixedBatches,
    FunctionLoss,
    NoOpCallback,
    assert_close,
    assert_same,
    fit,
    fit_in,
    make_model,
    make_run,
    make_trainer,
    weights_of,
)


class Weights(NoOpCallback):
    """The weights after every step."""

    def on_start(self, context, state) -> None:
        self.history = [weights_of(state.model)]

    def on_step(self, context, state, result) -> None:
        self.history.append(weights_of(state.model))


def averages(run) -> dict[str, np.ndarray]:
    return {name: np.array(leaf) for name, leaf in saved_arrays(run.state)[0].items()}


def test_the_average_follows_its_formula_with_a_lower_decay_at_first():
    watch = Weights()
    run = fit(make_trainer(ema_decay=0.5, epochs=2), callbacks=[watch])
    expected = watch.history[0]
    for n, weights in enumerate(watch.history[1:]):
        d = min(0.5, (1 + n) / (10 + n))
        expected = {name: d * leaf + (1 - d) * weights[name] for name, leaf in expected.items()}
    for name, leaf in averages(run).items():
        np.testing.assert_allclose(leaf, expected[name], atol=1e-6)


def test_training_is_the_same_with_an_average_and_without():
    plain, averaging = (fit(make_trainer(ema_decay=ema), seed=3) for ema in (None, 0.9))
    assert_same(weights_of(averaging.model), weights_of(plain.model))


def test_the_average_is_evaluated_and_saved_as_the_model(tmp_path):
    saving = Checkpointer(None, 3, False, folder=tmp_path)
    run = fit(
        make_trainer(ema_decay=0.9, epochs=4),
        make_run(make_model(dropout=0.3)),
        checkpointer=saving,
        seed=3,
    )
    checkpoint = CheckpointStore(tmp_path / "checkpoints").load()
    loaded = make_model(dropout=0.3)
    loaded.load_weights(list(checkpoint.weights.items()))
    loss = evaluate(loaded, FixedBatches(), TASK).metrics["loss"]
    assert loss == pytest.approx(run.state.history.evaluations[-1][1], abs=1e-7)
    assert evaluate(run.model, FixedBatches(), TASK).metrics["loss"] != pytest.approx(
        loss, abs=1e-6
    )
    for name, leaf in weights_of(run.model).items():
        np.testing.assert_array_equal(np.array(checkpoint.optimizer[f"trained.{name}"]), leaf)


def train(folder, ema_decay=0.9, step="never", **options):
    step = partial(OptimizedStep, **OPTIMIZED_STEP | {"compile": step})
    trainer = make_trainer(ema_decay=ema_decay, step=step)
    return fit_in(folder, trainer, background=True, **options)


@pytest.mark.parametrize("stop", [1, 6, 11])
def test_a_run_with_an_average_resumes_bit_for_bit(tmp_path, stop):
    uninterrupted = train(tmp_path / "uninterrupted")
    train(tmp_path / "stopped", stop_at=stop)
    resumed = train(tmp_path / "stopped", resume=True)
    assert final_state_digest(resumed.state) == final_state_digest(uninterrupted.state)
    assert_same(weights_of(resumed.model), weights_of(uninterrupted.model))


def test_a_nonfinite_step_does_not_change_the_average():
    nan = FunctionLoss(
        lambda model, batch: mx.full(batch.targets.shape, float("nan")) * model.out.weight.sum()
    )
    run = make_run()
    before = weights_of(run.model)
    fit(make_trainer(ema_decay=0.5, loss=nan, max_nonfinite_steps=100, epochs=1), run)
    assert_same(averages(run), before)


@pytest.mark.parametrize(("before", "after"), [(0.9, None), (None, 0.9)])
def test_ema_cannot_be_switched_on_or_off_on_resume(tmp_path, before, after):
    train(tmp_path, before, stop_at=4)
    with pytest.raises(CorruptCheckpointError, match="optimizer array") as error:
        train(tmp_path, after, resume=True)
    assert "\n" not in str(error.value)


@pytest.mark.fault_injection  # builds kernels: half a minute
def test_a_compiled_step_sees_the_average(tmp_path):
    eager, compiled = (train(tmp_path / step, step=step) for step in ("never", "always"))
    assert_close(averages(compiled), averages(eager), atol=1e-6)
