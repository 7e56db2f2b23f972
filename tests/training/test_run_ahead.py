"""Steps that start before the one before is read: the same weights, metrics and checkpoints, bit for bit."""

from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.checkpoint.store import CheckpointStore, load_checkpoint
from mlxlab.training.checkpointer import Checkpointer
from mlxlab.training.losses.loss import CrossEntropyLoss
from mlxlab.training.run_ahead import runs_ahead
from mlxlab.training.steps.optimized import OptimizedStep
from mlxlab.training.steps.step import PlainStep
from support.models import (
    OPTIMIZED_STEP,
    FunctionLoss,
    NoOpCallback,
    Recorder,
    StopAt,
    fit,
    make_model,
    make_run,
    make_trainer,
    weights_of,
)

STEPS = {
    "plain": partial(PlainStep, max_grad_norm=1.0),
    "optimized": partial(OptimizedStep, **OPTIMIZED_STEP),
    "micro-batches": partial(OptimizedStep, **OPTIMIZED_STEP | {"accumulate": 2}),
    "compiled": partial(OptimizedStep, **OPTIMIZED_STEP | {"compile": "always"}),
}


class Watch(NoOpCallback):
    """Counts the steps at which the weights were already those of a later step; never asks to wait."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, float, bool]] = []
        self.started = 0

    def needs_sync(self, state) -> bool:
        return False

    def on_step(self, context, state, result) -> None:
        self.steps.append((state.progress.step, result.loss, self.started > state.progress.step))


def counting(step, watch):
    """A step that tells `watch` how many were started."""

    def build(**objects):
        built = step(**objects)

        def counted(start):
            def call(batch):
                watch.started += 1
                return start(batch)

            return call

        class Counted:
            __call__, start = staticmethod(counted(built)), staticmethod(counted(built.start))

        return Counted()

    return build


def trained(mode: str, step="plain", callbacks=(), folder: Path | None = None, **changes):
    watch, tracker = Watch(), Recorder()
    if folder is not None:
        folder.mkdir(exist_ok=True)
    checkpointer = None if folder is None else Checkpointer(5, 3, False, folder=folder)
    trainer = make_trainer(async_steps=mode, step=counting(STEPS[step], watch), **changes)
    run = fit(trainer, make_run(tracker=tracker), [*callbacks, watch], checkpointer)
    return run, watch, untimed(tracker.lines)


def untimed(curve):
    """Without what the clock measures; text, in which NaN equals itself."""
    return [
        (step, str({k: v for k, v in line.items() if not k.startswith("throughput/")}))
        for step, line in curve
    ]


def assert_same(run, expected) -> None:
    for name, leaf in weights_of(expected.model).items():
        np.testing.assert_array_equal(weights_of(run.model)[name], leaf, err_msg=name)
    assert run.state.progress == expected.state.progress
    assert untimed(run.state.history.curve) == untimed(expected.state.history.curve)
    assert run.state.history.evaluations == expected.state.history.evaluations
    assert run.state.running == expected.state.running
    assert run.state.data_state == expected.state.data_state


@pytest.mark.parametrize(
    "step",
    [
        "plain",
        "optimized",
        "micro-batches",
        pytest.param("compiled", marks=pytest.mark.fault_injection),
    ],
)
@pytest.mark.parametrize(
    "changes", [{}, {"eval_every": 5, "ema_decay": 0.9}], ids=["epochs", "steps"]
)
def test_weights_metrics_and_counters_are_those_of_one_step_after_the_other(step, changes):
    expected, waiting, logged = trained("never", step, **changes)
    run, watch, lines = trained("always", step, **changes)
    assert_same(run, expected)
    assert lines == logged
    assert [seen[:2] for seen in watch.steps] == [seen[:2] for seen in waiting.steps]
    assert not any(ahead for *_, ahead in waiting.steps)
    assert sum(ahead for *_, ahead in watch.steps) >= len(watch.steps) // 2


def test_every_checkpoint_is_that_of_one_step_after_the_other(tmp_path):
    for mode in ("never", "always"):
        trained(mode, folder=tmp_path / mode, epochs=2)
    stores = [CheckpointStore(tmp_path / mode / "checkpoints") for mode in ("never", "always")]
    names = [[path.name for path in store.paths()] for store in stores]
    assert names[0] == names[1]
    for paths in zip(*(store.paths() for store in stores), strict=True):
        for file in ("model.safetensors", "optimizer.safetensors"):
            one, other = ((path / file).read_bytes() for path in paths)
            assert one == other, (paths[0].name, file)
        one, other = (load_checkpoint(path).state for path in paths)
        for key in ("progress", "running", "data"):
            assert one[key] == other[key], (paths[0].name, key)


def test_a_resumed_run_ends_as_the_uninterrupted_one(tmp_path):
    expected, *_ = trained("never")
    stopped, *_ = trained("always", callbacks=[StopAt(7)], folder=tmp_path)
    checkpoint = CheckpointStore(tmp_path / "checkpoints").load()
    assert stopped.state.progress.step == checkpoint.step == 7
    resumed = fit(
        make_trainer(async_steps="always"), make_run(make_model(seed=1)), checkpoint=checkpoint
    )
    for name, leaf in weights_of(expected.model).items():
        np.testing.assert_array_equal(weights_of(resumed.model)[name], leaf, err_msg=name)


class AskAt(Watch):
    """Makes a request at a step, without asking to wait for it."""

    def __init__(self, step: int, **request: object) -> None:
        super().__init__()
        self.step, self.request = step, request

    def on_step(self, context, state, result) -> None:
        if state.progress.step == self.step:
            vars(context.control).update(self.request)


def test_a_signal_ends_the_run_after_the_step_in_flight(tmp_path):
    stopped, *_ = trained("always", callbacks=[AskAt(13, stop_signal=15)], folder=tmp_path)
    checkpoint = CheckpointStore(tmp_path / "checkpoints").load()
    assert stopped.state.progress.step == checkpoint.step == 14
    resumed = fit(
        make_trainer(async_steps="always"), make_run(make_model(seed=1)), checkpoint=checkpoint
    )
    expected, *_ = trained("never")
    for name, leaf in weights_of(expected.model).items():
        np.testing.assert_array_equal(weights_of(resumed.model)[name], leaf, err_msg=name)


def test_a_requested_checkpoint_has_the_weights_of_its_step(tmp_path):
    for mode, step in (
        ("never", 9),
        ("always", 8),
    ):  # that of step 8 is read while step 9 is computed
        trained(
            mode,
            callbacks=[AskAt(step, save_requested=True)],
            folder=tmp_path / mode,
            epochs=2,
            log_every=7,
        )
    one, other = (tmp_path / mode / "checkpoints" / "step-00000009" for mode in ("never", "always"))
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_nonfinite_steps_and_the_rollback_are_those_of_one_step_after_the_other(tmp_path):
    def poisoned(model, batch):
        bad = mx.any(batch.example_ids % 11 < 1)
        return CrossEntropyLoss(0.0)(model, batch).total + mx.where(bad, float("nan"), 0.0)

    runs = {
        mode: trained(
            mode,
            folder=tmp_path / mode,
            loss=FunctionLoss(poisoned),
            max_nonfinite_steps=2,
            max_rollbacks=50,
            epochs=4,
        )
        for mode in ("never", "always")
    }
    (expected, _, logged), (run, watch, lines) = runs["never"], runs["always"]
    assert expected.state.progress.nonfinite_steps > 2
    assert expected.state.progress.rollbacks > 0
    assert any(ahead for *_, ahead in watch.steps)
    assert_same(run, expected)
    assert lines == logged


def test_auto_overlaps_steps_on_gpus_only_and_in_one_process():
    model = make_model()
    step = PlainStep(
        1.0, model=model, loss=CrossEntropyLoss(0.0), optimizer=make_trainer().new_optimizer(model)
    )
    is_gpu = mx.default_device() == mx.Device(mx.gpu)
    assert runs_ahead("auto", step, 1) == is_gpu
    assert runs_ahead("always", step, 1)
    assert not runs_ahead("always", step, 2)
    assert not runs_ahead("always", lambda batch: step(batch), 1)
    assert not runs_ahead("never", step, 1)
