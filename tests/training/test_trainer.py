"""The training loop: logging, how it ends, and stopped or interrupted runs that resume as uninterrupted ones."""

import shutil
from functools import partial
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.callbacks.early_stopping import EarlyStopping
from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.data.dataset import RunLength
from mlxlab.errors import DivergenceError, WriteError
from mlxlab.training.checkpointer import final_state_digest
from mlxlab.training.losses.loss import CrossEntropyLoss
from mlxlab.training.steps.optimized import OptimizedStep
from support.models import (
    OPTIMIZED_STEP,
    FunctionLoss,
    NoOpCallback,
    RandomBatches,
    Recorder,
    StopAt,
    assert_same,
    fit,
    fit_in,
    make_model,
    make_run,
    make_trainer,
    weights_of,
)


def train(folder, *, run=None, callbacks=(), **changes):
    run = run or make_run(make_model(dropout=0.3), RandomBatches(rows=22), tracker=Recorder())
    names = ("stop_at", "resume", "every_steps")
    options = {name: changes.pop(name) for name in names if name in changes}
    return fit_in(folder, make_trainer(**changes), run, callbacks, background=True, **options)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return train(tmp_path_factory.mktemp("reference"))


@pytest.mark.parametrize("step", range(1, 18))
def test_a_run_stopped_anywhere_and_resumed_ends_in_the_same_state(tmp_path, reference, step):
    """And logs every metric of every step once."""
    first = train(tmp_path, stop_at=step)
    run = train(tmp_path, resume=True)
    assert final_state_digest(run.state) == final_state_digest(reference.state)
    assert_same(weights_of(run.model), weights_of(reference.model))
    history, expected = run.state.history, reference.state.history
    assert history.evaluations == expected.evaluations
    assert (history.best, history.best_step) == (expected.best, expected.best_step)
    assert run.state.progress == reference.state.progress
    assert sorted(metrics_of(first) + metrics_of(run)) == sorted(metrics_of(reference))


def metrics_of(run):
    """The step and name of each logged metric."""
    return [(step, name) for step, line in run.context.tracker.lines for name in line]


def test_a_chain_of_resumes_ends_in_the_same_state_and_one_more_does_nothing(tmp_path, reference):
    for step in (2, 5, 6, 11, 16):
        train(tmp_path, stop_at=step, resume=step > 2)
    for _ in range(2):
        run = train(tmp_path, resume=True)
        assert final_state_digest(run.state) == final_state_digest(reference.state)
    assert run.context.tracker.lines == []


def test_a_checkpoint_holds_what_callbacks_log_at_its_step(tmp_path):
    class LogStep(NoOpCallback):
        def on_step(self, context, state, result):
            context.log(state, {"test/step": float(state.progress.step)})

    train(tmp_path, callbacks=[LogStep()], every_steps=5, epochs=1)
    checkpoint = CheckpointStore(tmp_path / "checkpoints").load()
    assert checkpoint.state["history"].curve[-1][1]["test/step"] == checkpoint.step


@pytest.mark.parametrize(
    ("limits", "steps"),
    [({"max_steps": 8, "eval_every": 3}, [3, 6, 8]), ({"epochs": 2}, [6, 12])],
)
def test_evaluations_run_every_n_steps_or_epoch_and_at_the_end(limits, steps):
    run = fit(make_trainer(**limits))
    assert [step for step, _ in run.state.history.evaluations] == steps


def test_max_tokens_ends_the_run():
    run = fit(
        make_trainer(max_tokens=50, schedule=lambda peak, steps: lambda step: step * 0 + peak)
    )
    # The first number of whole batches of 24 tokens that is at least 50.
    assert run.state.progress.tokens == 72


@pytest.mark.parametrize(
    ("patience", "min_delta", "stops"), [(2, 0.0, False), (2, 0.05, True), (None, 0.05, False)]
)
def test_early_stopping_counts_evaluations_since_the_best(patience, min_delta, stops):
    run = make_run()
    run.state.history.evaluations = [(1, 0.5), (2, 0.4), (3, 0.45), (4, 0.39)]
    EarlyStopping(patience, min_delta).on_start(run.context, run.state)
    assert bool(run.control.stop_reason) == stops


def test_the_best_checkpoint_is_kept_when_others_are_removed(tmp_path):
    run = train(tmp_path, every_steps=1, eval_every=2, epochs=4)
    history, step = run.state.history, run.state.progress.step
    steps = {int(path.name[5:13]) for path in CheckpointStore(tmp_path / "checkpoints").paths()}
    assert steps == {history.best_step, step, step - 1}
    assert CheckpointStore(tmp_path / "checkpoints").load("best").step == history.best_step


def test_a_diverging_run_rolls_back_to_its_last_checkpoint_and_skips_the_data(tmp_path):
    class Poisoned(RandomBatches):
        def batch(self, rows):
            batch = super().batch(rows)
            bad = self.epoch == 1 and 1 <= self.index <= 3  # three batches in a row
            return batch._replace(loss_weights=batch.loss_weights * (np.nan if bad else 1))

    def nan_sum(model, batch):
        is_bad = mx.isnan(batch.loss_weights.sum())
        return CrossEntropyLoss(0.0)(model, batch).total + mx.where(is_bad, float("nan"), 0.0)

    options = {"every_steps": 2, "loss": FunctionLoss(nan_sum)}
    run = make_run(make_model(), Poisoned(rows=22))
    train(tmp_path, run=run, **options)
    progress = run.state.progress
    assert (progress.rollbacks, progress.nonfinite_steps, progress.step) == (1, 3, 18)
    assert run.control.stop_reason == "done"
    assert all(np.isfinite(leaf).all() for leaf in weights_of(run.model).values())
    run = make_run(make_model(), Poisoned(rows=22))
    with pytest.raises(DivergenceError):
        train(tmp_path / "none", run=run, max_rollbacks=0, **options)


def test_a_checkpoint_with_nonfinite_numbers_is_never_committed(tmp_path, caplog):
    class Spoil(StopAt):
        def on_step(self, context, state, result) -> None:
            if state.progress.step == self.step:
                state.model.out.bias = state.model.out.bias * float("nan")

    options = {"every_steps": 1, "max_rollbacks": 0, "max_nonfinite_steps": 5}
    with pytest.raises(WriteError):
        train(tmp_path, run=make_run(), callbacks=[Spoil(17)], **options)
    assert CheckpointStore(tmp_path / "checkpoints").load().step == 16
    assert "not finite" in caplog.text


def test_surplus_checkpoints_of_a_killed_run_are_removed_on_resume(tmp_path):
    train(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    names = sorted(path.name for path in checkpoints.iterdir())
    shutil.copytree(checkpoints / names[0], checkpoints / "step-00000002")
    train(tmp_path, resume=True)
    assert sorted(path.name for path in checkpoints.iterdir()) == names


@pytest.mark.parametrize(
    ("min_steps", "batches", "epochs"),
    [(300, 67, 5), (300, 6, 50), (300, 7, 43), (300, 1, 100), (300, None, 5), (None, 1, 5)],
)
def test_epochs_are_chosen_by_the_steps_that_small_data_need(min_steps, batches, epochs):
    data = SimpleNamespace(min_steps=min_steps) if min_steps else SimpleNamespace()
    trainer = make_trainer(epochs="auto").for_data(data, batches)
    assert trainer.length == RunLength(epochs=epochs)
    assert make_trainer(epochs=2).for_data(data, batches).length.epochs == 2
    assert make_trainer(epochs="auto").length.epochs == 5, "before the data is known"


MICRO_BATCHES = 4
STEP = partial(OptimizedStep, **(OPTIMIZED_STEP | {"accumulate": MICRO_BATCHES}))


class SignalAt(CrossEntropyLoss):
    """SIGTERM arrives while the loss of some micro-batch is computed; the micro-batches after it are counted."""

    def __init__(self, micro_batch, run):
        super().__init__(0.0)
        self.left, self.run, self.later = micro_batch, run, 0

    def __call__(self, model, batch):
        self.later += self.left < 0
        if self.left == 0:
            self.run.control.stop_signal = 15
        self.left -= 1
        return super().__call__(model, batch)


def train_accumulating(folder, *, signal_at=None, resume=False):
    run = make_run(make_model(dropout=0.3), RandomBatches(rows=24))
    loss = CrossEntropyLoss(0.0) if signal_at is None else SignalAt(signal_at, run)
    trainer = make_trainer(step=STEP, loss=loss)
    return fit_in(folder, trainer, run, every_steps=None, resume=resume), loss


@pytest.mark.parametrize("micro_batch", [0, 1, 3, 5, 10])
def test_a_signal_ends_the_run_before_the_next_micro_batch_and_a_resume_is_exact(
    tmp_path, micro_batch
):
    expected, _ = train_accumulating(tmp_path / "uninterrupted")
    run, loss = train_accumulating(tmp_path / "run", signal_at=micro_batch)
    assert loss.later == 0
    assert run.control.stop_reason == "signal 15"
    assert run.state.progress.step == (micro_batch + 1) // MICRO_BATCHES
    saved = CheckpointStore(tmp_path / "run" / "checkpoints").load()
    assert saved.step == run.state.progress.step
    resumed, _ = train_accumulating(tmp_path / "run", resume=True)
    assert final_state_digest(resumed.state) == final_state_digest(expected.state)
    assert_same(weights_of(resumed.model), weights_of(expected.model))
