"""The average of the weights: what it is, that it is what is evaluated and kept, that a resume changes nothing."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.errors import ConfigError
from mlxlab.training.checkpointer import Checkpointer, final_state_digest, saved_arrays
from mlxlab.training.evaluate import evaluate
from mlxlab.training.steps.optimized import OptimizedStep
from support.models import TASK, Fixed, FunctionLoss, Hook, fit, new_model, new_run, new_trainer, weights_of

STEP = {
    "max_grad_norm": 1.0,
    "accumulate": 1,
    "activation_checkpointing": False,
    "dtype": "float32",
    "allow_slow_dtype": False,
    "retry_on_oom": False,
}


class Weights(Hook):
    """The weights after every step."""

    def __init__(self, stop: int = 0) -> None:
        self.seen, self.stop = [], stop

    def on_start(self, context, state) -> None:
        self.seen.append(weights_of(state.model))

    def on_step(self, context, state, result) -> None:
        self.seen.append(weights_of(state.model))
        if state.progress.step == self.stop:
            context.control.stop_reason = "test"


def averages(run) -> dict[str, np.ndarray]:
    return {name: np.array(leaf) for name, leaf in saved_arrays(run.state)[0].items()}


def test_the_average_moves_by_its_decay_and_faster_at_first():
    watch = Weights()
    run = fit(new_trainer(ema_decay=0.5, epochs=2), callbacks=[watch])
    expected = watch.seen[0]
    for n, weights in enumerate(watch.seen[1:]):
        d = min(0.5, (1 + n) / (10 + n))
        expected = {name: d * leaf + (1 - d) * weights[name] for name, leaf in expected.items()}
    for name, leaf in averages(run).items():
        np.testing.assert_allclose(leaf, expected[name], atol=1e-6)


def test_training_is_the_same_with_an_average_and_without():
    plain, averaging = (fit(new_trainer(ema_decay=ema), seed=3) for ema in (None, 0.9))
    for name, leaf in weights_of(plain.model).items():
        np.testing.assert_array_equal(weights_of(averaging.model)[name], leaf)


def test_the_average_is_what_is_evaluated_and_what_the_model_file_holds(tmp_path):
    saving = Checkpointer(None, 3, False, folder=tmp_path)
    run = fit(new_trainer(ema_decay=0.9, epochs=4), new_run(new_model(dropout=0.3)), checkpointer=saving, seed=3)
    checkpoint = CheckpointStore(tmp_path / "checkpoints").load()
    kept = new_model(dropout=0.3)
    kept.load_weights(list(checkpoint.weights.items()))
    found = evaluate(kept, Fixed(), TASK).metrics["loss"]
    assert found == pytest.approx(run.state.history.evaluations[-1][1], abs=1e-7)
    assert evaluate(run.model, Fixed(), TASK).metrics["loss"] != pytest.approx(found, abs=1e-6)
    for name, leaf in weights_of(run.model).items():
        np.testing.assert_array_equal(np.array(checkpoint.optimizer[f"trained.{name}"]), leaf)


def train(folder, stop: int = 0, resume: bool = False, **changes):
    changes = {"ema_decay": 0.9, "step": partial(OptimizedStep, **STEP, compile="never", cpu_streams="one")} | changes
    saved = CheckpointStore(folder / "checkpoints").load() if resume else None
    saving = Checkpointer(3, 2, True, folder=folder)
    return fit(new_trainer(**changes), callbacks=[Weights(stop)], checkpointer=saving, checkpoint=saved, seed=4)


@pytest.mark.parametrize("stop", [1, 6, 11])
def test_a_run_with_an_average_resumes_bit_for_bit(tmp_path, stop):
    whole = train(tmp_path / "whole")
    train(tmp_path / "cut", stop)
    resumed = train(tmp_path / "cut", resume=True)
    assert final_state_digest(resumed.state) == final_state_digest(whole.state)
    for name, leaf in weights_of(whole.model).items():
        np.testing.assert_array_equal(weights_of(resumed.model)[name], leaf)


@pytest.fixture(autouse=True)
def folders(tmp_path):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()


def test_a_skipped_update_leaves_the_average_alone():
    nan = FunctionLoss(lambda model, batch: mx.full(batch.targets.shape, float("nan")) * model.out.weight.sum())
    run = new_run()
    before = weights_of(run.model)
    fit(new_trainer(ema_decay=0.5, loss=nan, max_nonfinite_steps=100, epochs=1), run)
    for name, leaf in averages(run).items():
        np.testing.assert_array_equal(leaf, before[name])


@pytest.mark.parametrize("change", [{"ema_decay": None}, {"ema_decay": 0.9}])
def test_an_average_cannot_begin_or_end_on_resume(tmp_path, change):
    train(tmp_path / "cut", 4, ema_decay=None if change["ema_decay"] else 0.9)
    with pytest.raises(ConfigError, match=r"trainer\.ema_decay") as found:
        train(tmp_path / "cut", resume=True, **change)
    assert "\n" not in str(found.value)


@pytest.mark.fault_injection  # builds kernels: half a minute
def test_a_compiled_step_sees_the_average(tmp_path):
    step = partial(OptimizedStep, **STEP, compile="always", cpu_streams="one")
    eager, compiled = (train(tmp_path / name, **more) for name, more in (("whole", {}), ("cut", {"step": step})))
    for name, leaf in averages(eager).items():
        np.testing.assert_allclose(averages(compiled)[name], leaf, atol=1e-6)
