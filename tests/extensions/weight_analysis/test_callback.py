"""WeightAnalysis: what is logged at which step, errors and skips, kill and resume, results of training."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from mlxlab.checkpoint.store import CheckpointStore
from mlxlab.extensions.weight_analysis import measure
from mlxlab.extensions.weight_analysis.callback import (
    SECONDS,
    WeightAnalysis,
)
from mlxlab.models.build import build_model
from mlxlab.training.checkpointer import Checkpointer, final_state_digest
from support.models import FixedBatches, NoOpCallback, Recorder, StopAt, fit, make_run, make_trainer

NODE = {
    "_target_": "mlxlab.models.bert.Bert",
    "hidden_size": 16,
    "num_layers": 2,
    "num_heads": 2,
    "intermediate_size": 24,
    "dropout": 0.2,
}


class Killed(Exception):
    """Ends a fit between two callbacks, as SIGKILL would."""


class Kill(NoOpCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, context, state, result) -> None:
        if state.progress.step == self.step:
            raise Killed


class Wait(NoOpCallback):
    """Makes the background thread as fast as training, so that no evaluation is skipped."""

    def __init__(self, callback: WeightAnalysis) -> None:
        self.callback = callback

    def on_step(self, context, state, result) -> None:
        if self.callback._job is not None:
            self.callback._job.join()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was not killed."""
    folder = tmp_path_factory.mktemp("whole")
    callback = analysis()
    return train(folder, [Wait(callback), callback])


def analysis(metrics="all", **changes) -> WeightAnalysis:
    args = {"max_rows": 12, "neighbours_above": 0.7, "attention_rows": 2, "max_memory": 0.9}
    return WeightAnalysis(metrics, **(args | changes))


@pytest.fixture(autouse=True)
def memory(monkeypatch):
    """Sets the memory of the machine in GB of 100."""

    def set_available(gigabytes: float) -> None:
        memory = SimpleNamespace(available=gigabytes * 1e9, total=100e9)
        monkeypatch.setattr("psutil.virtual_memory", lambda: memory)

    set_available(90)
    return set_available


def train(folder, callbacks, *, tracker=None, checkpoint=None, trainer=None, checkpointer=None):
    model = build_model(NODE, kind="classification", vocab_size=20, num_classes=2, seed=0)
    run = make_run(model, tracker=tracker or Recorder(), valid=FixedBatches())
    trainer = trainer or make_trainer(eval_every=2, max_steps=6, epochs=None)
    return fit(trainer, run, callbacks, checkpointer, checkpoint)


def logged(tracker) -> list[tuple[int, str, float]]:
    """Values of the analysis, without times; sorted."""
    return sorted(
        (step, name, value)
        for step, metrics in tracker.lines
        for name, value in metrics.items()
        if name.startswith("analysis/") and not name.endswith("seconds")
    )


def test_all_quantities_are_logged_at_their_steps(whole):
    values = {
        (step, name.removeprefix("analysis/")): value
        for step, name, value in logged(whole.context.tracker)
    }
    kinds = {(step, name.split("/")[0]) for step, name in values}
    always = {"similarity", "neighbours", "rank"}
    assert kinds == {(0, kind) for kind in always} | {
        (step, kind)
        for step in (2, 4, 6)
        for kind in always | {"drift", "update_ratio", "attention_entropy"}
    }
    for step in (2, 4, 6):
        relative = values[step, "drift/layer_1/relative"]
        assert relative == pytest.approx(2 * values[step, "update_ratio/layer_1"])
        assert 0 < values[step, "drift/layer_1/aligned_relative"] <= relative
        assert 0 < values[step, "rank/feed_forward.down/layer_0"] <= 1
    at_4 = next(metrics for step, metrics in whole.state.history.curve if step == 4)
    assert at_4["analysis/update_ratio/embedding"] == values[4, "update_ratio/embedding"]


def test_training_is_the_same_with_and_without_it(tmp_path):
    trainer = make_trainer(eval_every=2, max_steps=5, epochs=None, ema_decay=0.9)
    digests = {
        final_state_digest(train(tmp_path, callbacks, trainer=trainer).state)
        for callbacks in ([], [analysis(None)], [analysis()])
    }
    assert len(digests) == 1


def test_an_error_of_the_background_thread_is_reported_in_a_line(tmp_path, monkeypatch, caplog):
    def fail(*args: object) -> None:
        raise np.linalg.LinAlgError("Eigenvalues did not\nconverge")

    monkeypatch.setattr(measure, "measure", fail)
    run = train(tmp_path, [analysis(["rank"])])
    assert run.control.stop_reason == "done"
    assert "analysis of step 4 failed: LinAlgError: Eigenvalues did not converge;" in caplog.text


def test_an_evaluation_that_comes_too_early_is_skipped_and_the_last_is_waited_for(
    tmp_path, monkeypatch, caplog
):
    finish, measured = threading.Event(), measure.measure

    def slow(*args):
        finish.wait(20)
        return measured(*args)

    class Finish(NoOpCallback):
        def on_step(self, context, state, result) -> None:
            if state.progress.step == 5:
                finish.set()
                callback._job.join()

    monkeypatch.setattr(measure, "measure", slow)
    callback = analysis(["drift", "updates"])
    run = train(tmp_path, [callback, Finish()])
    values = {(step, name): value for step, name, value in logged(run.context.tracker)}
    assert {step for step, _ in values} == {6}  # Those of steps 2 and 4 were skipped.
    relative = values[6, "analysis/drift/layer_0/relative"]
    assert relative == pytest.approx(6 * values[6, "analysis/update_ratio/layer_0"])
    assert "analysis of step 2 skipped: that of step 0 is not finished" in caplog.messages


def test_a_run_that_a_signal_ends_does_not_wait(tmp_path, monkeypatch):
    finish = threading.Event()
    monkeypatch.setattr(measure, "measure", lambda *args: finish.wait(20) and {})
    run = train(tmp_path, [analysis(["rank"]), StopAt(3)])
    assert run.state.progress.step == 3
    assert not finish.is_set()
    finish.set()


def test_without_memory_it_is_skipped(tmp_path, caplog, memory):
    memory(9)
    run = train(tmp_path, [analysis()])
    assert logged(run.context.tracker) == []
    assert "91 % of the memory are used (callbacks.analysis.max_memory=0.9)" in caplog.text


@pytest.mark.parametrize(("every_steps", "finished"), [(None, False), (3, False), (3, True)])
def test_a_killed_run_goes_on_from_the_weights_of_its_checkpoint(
    tmp_path, monkeypatch, whole, every_steps, finished
):
    """Killed after step 5; the analysis of step 4 was logged, or was still in the background.

    Checkpoints are at evaluations, or between them.
    """
    callback = analysis()

    class Hold(NoOpCallback):
        def on_step(self, context, state, result) -> None:
            if state.progress.step == 4 and not finished:
                monkeypatch.setattr(callback, "_log_result", lambda *args: None)

    checkpointer = Checkpointer(every_steps, 2, False, folder=tmp_path)
    with pytest.raises(Killed):
        train(tmp_path, [Wait(callback), callback, Hold(), Kill(5)], checkpointer=checkpointer)
    checkpoint = CheckpointStore(tmp_path / "checkpoints").load()
    again = analysis()
    resumed = train(tmp_path, [Wait(again), again], checkpoint=checkpoint)
    assert final_state_digest(resumed.state) == final_state_digest(whole.state)
    values = set(logged(resumed.context.tracker))
    if checkpoint.step == 4:  # That is an evaluation, as the one that drift begins from.
        assert {value for value in logged(whole.context.tracker) if value[0] > 4} <= values
        assert values <= set(logged(whole.context.tracker))
    ratios = {step for step, name, _ in values if name == "analysis/update_ratio/layer_0"}
    assert ratios == {step for step in (4, 6) if step > checkpoint.step}
    is_repeated = SECONDS not in dict(checkpoint.state["history"].curve)[checkpoint.step]
    ranks = {step for step, name, _ in values if "/rank/" in name}
    assert ranks == ratios | ({checkpoint.step} if is_repeated else set())
