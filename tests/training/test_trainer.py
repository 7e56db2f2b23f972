"""The training loop: logging, how it ends, and stopped or interrupted runs that resume as uninterrupted ones."""

import json
import shutil
from dataclasses import asdict
from functools import partial
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.callbacks.early_stopping import EarlyStopping
from mlxlab.callbacks.memory_monitor import MemoryMonitor
from mlxlab.checkpoint.state import CURVE_POINTS, History, TrainStateDict
from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.data.dataset import RunLength
from mlxlab.errors import DivergenceError, WriteError
from mlxlab.files.untrusted import parse_json
from mlxlab.schema.metric_names import is_better
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
    run = train(tmp_path_factory.mktemp("reference"))
    return final_state_digest(run.state), weights_of(run.model), run


@pytest.mark.parametrize("step", range(1, 18))
def test_a_run_stopped_anywhere_and_resumed_ends_in_the_same_state(tmp_path, reference, step):
    train(tmp_path, stop_at=step)
    run = train(tmp_path, resume=True)
    state, weights, uninterrupted = reference
    assert final_state_digest(run.state) == state
    assert_same(weights_of(run.model), weights)
    history, expected = run.state.history, uninterrupted.state.history
    assert (history.evaluations, history.best, history.best_step) == (
        expected.evaluations,
        expected.best,
        expected.best_step,
    )
    assert run.state.progress == uninterrupted.state.progress


def test_every_metric_and_step_is_logged_once_over_a_resume(tmp_path, reference):
    first = train(tmp_path, stop_at=7)
    second = train(tmp_path, resume=True)
    keys = [
        (step, name)
        for run in (first, second)
        for step, line in run.context.tracker.lines
        for name in line
    ]
    expected = [(step, name) for step, line in reference[2].context.tracker.lines for name in line]
    assert sorted(keys) == sorted(expected)


def test_a_chain_of_resumes_ends_in_the_same_state(tmp_path, reference):
    for step in (2, 5, 6, 11, 16):
        train(tmp_path, stop_at=step, resume=step > 2)
    assert final_state_digest(train(tmp_path, resume=True).state) == reference[0]


def test_a_finished_run_resumed_does_nothing(tmp_path, reference):
    train(tmp_path)
    run = train(tmp_path, resume=True)
    assert final_state_digest(run.state) == reference[0]
    assert run.context.tracker.lines == []


def test_callbacks_are_called_in_order_and_the_checkpointer_last(tmp_path):
    calls = []

    class Named(NoOpCallback):
        def __init__(self, name):
            self.name = name

        def on_start(self, context, state):
            calls.append((self.name, "start"))

        def on_step(self, context, state, result):
            calls.append((self.name, state.progress.step))

        def on_end(self, context, state):
            calls.append((self.name, "end"))

    fit(
        make_trainer(epochs=None, max_steps=2),
        callbacks=[Named("a"), Named("b")],
        checkpointer=Named("checkpointer"),
    )
    assert calls == [
        (name, when) for when in ("start", 1, 2, "end") for name in ("a", "b", "checkpointer")
    ]


def test_a_checkpoint_holds_what_callbacks_log_at_its_step(tmp_path):
    class LogStep(NoOpCallback):
        def on_step(self, context, state, result):
            context.log(state, {"test/step": float(state.progress.step)})

    train(tmp_path, callbacks=[LogStep()], every_steps=5, epochs=1)
    checkpoint = CheckpointStore(tmp_path / "checkpoints").load()
    assert checkpoint.state["history"].curve[-1][1]["test/step"] == checkpoint.step


@pytest.mark.parametrize("direction", [1, -1])
def test_the_shipped_callbacks_do_not_change_training_in_any_order(tmp_path, direction):
    callbacks = [MemoryMonitor(5), EarlyStopping(2, 0.5)][::direction]
    run = fit(make_trainer(epochs=9, eval_every=2), callbacks=callbacks, seed=1)
    alone_run = fit(make_trainer(epochs=9, eval_every=2), callbacks=[EarlyStopping(2, 0.5)], seed=1)
    assert run.control.stop_reason == alone_run.control.stop_reason
    assert run.control.stop_reason.startswith("early")
    assert final_state_digest(run.state) == final_state_digest(alone_run.state)


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


def test_early_stopping_counts_evaluations_since_the_best():
    run = make_run()
    run.state.history.evaluations = [(1, 0.5), (2, 0.4), (3, 0.45), (4, 0.39)]
    EarlyStopping(2, 0.0).on_start(run.context, run.state)
    assert not run.control.stop_reason
    EarlyStopping(2, 0.05).on_start(run.context, run.state)
    assert run.control.stop_reason


def test_patience_null_never_stops():
    run = make_run()
    run.state.history.evaluations = [(step, 1.0) for step in range(100)]
    EarlyStopping(None, 0.0).on_start(run.context, run.state)
    assert not run.control.stop_reason


def test_losses_are_minimised_accuracies_maximised_and_nan_is_never_best():
    assert is_better("valid/loss", 0.1, 0.2)
    assert is_better("valid/accuracy", 0.2, 0.1)
    assert not is_better("valid/loss", float("nan"), None)


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
        return CrossEntropyLoss(0.0)(model, batch).total + mx.where(
            mx.isnan(batch.loss_weights.sum()), float("nan"), 0.0
        )

    run = make_run(make_model(), Poisoned(rows=22), tracker=Recorder())
    train(tmp_path, run=run, every_steps=2, loss=FunctionLoss(nan_sum))
    progress = run.state.progress
    assert (progress.rollbacks, progress.nonfinite_steps, progress.step) == (1, 3, 18)
    assert run.control.stop_reason == "done"
    assert all(np.isfinite(leaf).all() for leaf in weights_of(run.model).values())
    run = make_run(make_model(), Poisoned(rows=22), tracker=Recorder())
    with pytest.raises(DivergenceError):
        train(
            tmp_path / "none", run=run, every_steps=2, loss=FunctionLoss(nan_sum), max_rollbacks=0
        )


def test_a_checkpoint_with_nonfinite_numbers_is_never_committed(tmp_path, caplog):
    class Spoil(StopAt):
        def on_step(self, context, state, result) -> None:
            if state.progress.step == self.step:
                state.model.out.bias = state.model.out.bias * float("nan")

    run = make_run(make_model(), RandomBatches(rows=22), tracker=Recorder())
    with pytest.raises(WriteError):
        train(
            tmp_path,
            run=run,
            every_steps=1,
            callbacks=[Spoil(17)],
            max_rollbacks=0,
            max_nonfinite_steps=5,
        )
    assert CheckpointStore(tmp_path / "checkpoints").load().step == 16
    assert "not finite" in caplog.text


def test_surplus_checkpoints_of_a_killed_run_are_removed_on_resume(tmp_path):
    train(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    names = sorted(path.name for path in checkpoints.iterdir())
    shutil.copytree(checkpoints / names[0], checkpoints / "step-00000002")
    train(tmp_path, resume=True)
    assert sorted(path.name for path in checkpoints.iterdir()) == names


def test_a_saved_state_survives_json_and_a_new_run():
    run = fit(make_trainer(epochs=2))
    saved = parse_json(
        json.dumps(run.state.state_dict(), default=asdict),
        TrainStateDict,
        "state.json",
        allow_nan=True,
    )
    restored = make_run().state
    restored.load_state_dict(saved)
    assert restored.state_dict() == run.state.state_dict()


def test_late_metrics_join_those_of_their_step():
    history = History()
    history.add_metrics(2, {"a": 1.0})
    history.add_metrics(5, {"a": 2.0})
    history.add_metrics(2, {"b": 3.0})
    history.add_metrics(3, {"b": 4.0})
    history.add_metrics(5, {"b": 5.0})
    assert history.curve == [(2, {"a": 1.0, "b": 3.0}), (3, {"b": 4.0}), (5, {"a": 2.0, "b": 5.0})]


def test_thinning_the_curve_keeps_evaluations_and_the_last_point():
    history = History()
    for step in range(1, CURVE_POINTS + 2):
        history.add_metrics(step, {"valid/loss" if step == 7 else "train/loss": 1.0})
    assert len(history.curve) < CURVE_POINTS
    assert 7 in dict(history.curve)
    assert history.at(CURVE_POINTS + 1) == {"train/loss": 1.0}


def test_a_run_whose_epochs_end_it_before_max_steps_says_so():
    assert make_trainer(epochs=5, max_steps=200).early_end(10) == (
        "ends after 50 steps: trainer.epochs=5 is reached before trainer.max_steps=200"
    )
    for changes, batches in (({"max_steps": 50}, 10), ({"max_steps": 200}, None), ({}, 10)):
        assert make_trainer(epochs=5, **changes).early_end(batches) == ""


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
