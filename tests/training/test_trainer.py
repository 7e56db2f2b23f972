"""The loop: what is logged when, how it ends, and that a resumed run is the same run."""

import shutil

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.callbacks.checkpointing import Checkpointer, run_state_digest
from mlxlab.callbacks.early_stopping import EarlyStopping
from mlxlab.callbacks.learning_curve import LearningCurvePlot
from mlxlab.callbacks.memory_monitor import MemoryMonitor
from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.errors import DivergenceError, WriteError
from mlxlab.training.losses.loss import CrossEntropyLoss
from mlxlab.training.state import MonitoredMetric
from support.models import TASK, Fixed, FunctionLoss, Recorder, Stream, new_model, new_run, new_trainer, weights_of


class StopAt:
    """Ends the run after a step, as a signal would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_start(self, run) -> None: ...

    def on_step(self, run) -> None:
        if run.step == self.step:
            run.signal, run.stop = 15, "signal 15"

    def on_end(self, run) -> None: ...


def fit(folder, *, stop_at=None, resume=False, callbacks=(), run=None, **changes):
    run = run or new_run(new_model(dropout=0.3), Stream(rows=22), tracker=Recorder())
    checkpoint = CheckpointStore(folder / "checkpoints").load() if resume else None
    stop = [StopAt(stop_at)] if stop_at else []
    saving = Checkpointer(every=changes.pop("every", 3), keep=2, background=True, folder=folder)
    return new_trainer(**changes).fit(run, Fixed(), TASK, [saving, *stop, *callbacks], checkpoint, seed=4)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    run = fit(tmp_path_factory.mktemp("reference"))
    return run_state_digest(run), weights_of(run.model), run


@pytest.mark.parametrize("step", range(1, 18))
def test_a_run_stopped_anywhere_and_resumed_ends_in_the_same_state(tmp_path, reference, step):
    fit(tmp_path, stop_at=step)
    run = fit(tmp_path, resume=True)
    state, weights, uninterrupted = reference
    assert run_state_digest(run) == state
    for name, leaf in weights_of(run.model).items():
        np.testing.assert_array_equal(leaf, weights[name])
    assert run.history == uninterrupted.history
    assert (run.best, run.best_step, run.examples, run.tokens) == (
        uninterrupted.best,
        uninterrupted.best_step,
        uninterrupted.examples,
        uninterrupted.tokens,
    )


def test_every_metric_and_step_is_logged_once_over_a_resume(tmp_path, reference):
    first = fit(tmp_path, stop_at=7)
    second = fit(tmp_path, resume=True)
    keys = [(step, name) for run in (first, second) for step, line in run.tracker.lines for name in line]
    whole = [(step, name) for step, line in reference[2].tracker.lines for name in line]
    assert sorted(keys) == sorted(whole)


def test_a_chain_of_resumes_ends_in_the_same_state(tmp_path, reference):
    for step in (2, 5, 6, 11, 16):
        fit(tmp_path, stop_at=step, resume=step > 2)
    assert run_state_digest(fit(tmp_path, resume=True)) == reference[0]


def test_a_finished_run_resumed_does_nothing(tmp_path, reference):
    fit(tmp_path)
    run = fit(tmp_path, resume=True)
    assert run_state_digest(run) == reference[0]
    assert run.tracker.lines == []


def test_the_order_of_callbacks_does_not_matter(tmp_path):
    seen = []
    for turn in (1, -1):
        folder = tmp_path / str(turn)
        folder.mkdir()
        callbacks = [
            MemoryMonitor(5, folder=folder),
            EarlyStopping(2, 0.5),
            LearningCurvePlot(folder=folder),
            Checkpointer(2, 2, True, folder=folder),
        ]
        run = new_run(new_model(), tracker=Recorder())
        new_trainer(epochs=9, eval_every=2).fit(run, Fixed(), TASK, callbacks[::turn], seed=1)
        names = sorted((step, name) for step, line in run.tracker.lines for name in line)
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
        seen.append((run.stop, run.step, run_state_digest(run), names, files))
    assert seen[0] == seen[1]
    assert seen[0][0].startswith("early")


def test_evaluations_fall_due_at_their_cadence_and_at_the_end():
    run = new_run(tracker=Recorder())
    new_trainer(max_steps=8, eval_every=3).fit(run, Fixed(), TASK)
    assert [step for step, _ in run.history] == [3, 6, 8]


def test_without_a_cadence_every_epoch_is_evaluated():
    run = new_run()
    new_trainer(epochs=2).fit(run, Fixed(), TASK)
    assert [step for step, _ in run.history] == [6, 12]


def test_max_tokens_ends_the_run():
    run = new_run()
    new_trainer(max_tokens=50, schedule=lambda peak, steps: lambda step: step * 0 + peak).fit(run, Fixed(), TASK)
    assert run.tokens == 72  # the first number of whole batches of 24 tokens that is at least 50


def test_early_stopping_counts_evaluations_since_the_best():
    run = new_run(history=[(1, 0.5), (2, 0.4), (3, 0.45), (4, 0.39)])
    EarlyStopping(2, 0.0).on_step(run)
    assert not run.stop
    EarlyStopping(2, 0.05).on_step(run)
    assert run.stop


def test_patience_null_never_stops_and_nan_is_never_best():
    run = new_run(history=[(step, 1.0) for step in range(100)])
    EarlyStopping(None, 0.0).on_step(run)
    assert not run.stop
    assert not MonitoredMetric("valid/loss").better(float("nan"), None)


def test_losses_are_minimised_and_accuracies_maximised():
    assert MonitoredMetric("valid/loss").better(0.1, 0.2)
    assert MonitoredMetric("valid/accuracy").better(0.2, 0.1)


def test_the_best_checkpoint_stays_when_newer_ones_push_the_rest_out(tmp_path):
    run = fit(tmp_path, every=1, eval_every=2, epochs=4)
    steps = {int(path.name[5:13]) for path in CheckpointStore(tmp_path / "checkpoints").steps()}
    assert steps == {run.best_step, run.step, run.step - 1}
    assert CheckpointStore(tmp_path / "checkpoints").load("best").step == run.best_step


def test_training_learns(reference):
    _, _, run = reference
    losses = [line["train/loss"] for _, line in run.tracker.lines if "train/loss" in line]
    assert losses[-1] < losses[0]


def test_a_run_that_diverges_goes_back_to_its_last_good_checkpoint_and_past_the_data(tmp_path):
    class Poisoned(Stream):
        def batch(self, rows):
            batch = super().batch(rows)
            bad = self.epoch == 1 and 1 <= self.index <= 3  # three batches in a row
            return batch._replace(weights=batch.weights * (np.nan if bad else 1))

    def nan_sum(model, batch):
        return CrossEntropyLoss(0.0)(model, batch).total + mx.where(mx.isnan(batch.weights.sum()), float("nan"), 0.0)

    run = new_run(new_model(), Poisoned(rows=22), tracker=Recorder())
    fit(tmp_path, run=run, every=2, loss=FunctionLoss(nan_sum))
    assert (run.rollbacks, run.skipped, run.step, run.stop) == (1, 3, 18, "done")
    assert all(np.isfinite(leaf).all() for leaf in weights_of(run.model).values())
    run = new_run(new_model(), Poisoned(rows=22), tracker=Recorder())
    (tmp_path / "none").mkdir()
    with pytest.raises(DivergenceError):
        fit(tmp_path / "none", run=run, every=2, loss=FunctionLoss(nan_sum), max_rollbacks=0)


def test_a_checkpoint_with_numbers_that_are_not_finite_is_never_committed(tmp_path, capsys):
    class Spoil(StopAt):
        def on_step(self, run) -> None:
            if run.step == self.step:
                run.model.out.bias = run.model.out.bias * float("nan")

    run = new_run(new_model(), Stream(rows=22), tracker=Recorder())
    with pytest.raises(WriteError):
        fit(tmp_path, run=run, every=1, callbacks=[Spoil(17)], max_rollbacks=0, max_skips=5)
    assert CheckpointStore(tmp_path / "checkpoints").load().step == 17
    assert "not finite" in capsys.readouterr().err


def test_what_a_run_killed_after_its_last_save_had_yet_to_remove_is_removed(tmp_path):
    fit(tmp_path)
    checkpoints = tmp_path / "checkpoints"
    kept = sorted(path.name for path in checkpoints.iterdir())
    shutil.copytree(checkpoints / kept[0], checkpoints / "step-00000002")
    fit(tmp_path, resume=True)
    assert sorted(path.name for path in checkpoints.iterdir()) == kept


def test_a_state_of_a_version_that_counted_less_is_gone_on_from():
    run = new_run()
    new_trainer(epochs=2).fit(run, Fixed(), TASK)
    state = run.state_dict()
    older = {name: value for name, value in state.items() if name not in ("sizes", "examples_before")}
    again = new_run()
    again.load_state_dict(older)
    assert again.state_dict() == state | {"examples_before": 0}
