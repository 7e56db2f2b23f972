"""A growth schedule in training: what is carried over, when it happens, and that a resumed run is the same."""

from dataclasses import replace
from functools import partial
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_map

from mlxlab.callbacks.early_stopping import EarlyStopping
from mlxlab.checkpoint.state import ChangedSettings
from mlxlab.errors import ConfigError, WorkerLostError
from mlxlab.extensions.growth import apply
from mlxlab.extensions.growth.callback import GrowthSchedule
from mlxlab.extensions.growth.operations import widths
from mlxlab.models.build import Architecture, build_model
from mlxlab.models.layers import named_parameters
from mlxlab.run.resume.start import without_overridden_settings
from mlxlab.training.callback import FitContext
from mlxlab.training.checkpointer import Checkpointer, NoCheckpointer, final_state_digest
from mlxlab.training.distributed.process_group import ProcessGroup
from mlxlab.training.loop import TrainingLoop
from mlxlab.training.steps.optimized import OptimizedStep
from support.growth import SIZES, TARGETS
from support.models import (
    OPTIMIZED_STEP,
    TASK,
    FixedBatches,
    NoOpCallback,
    RandomBatches,
    Recorder,
    ResizableBatches,
    Run,
    StopAt,
    make_trainer,
)

NODE = {"_target_": TARGETS["transformer"], **SIZES, "norm_type": "rms"}


def op(name, op, steps=1, **options):
    """An operation that waits for some steps."""
    return {"id": name, "op": op, "when": {"or_steps": steps}, **options}


DEEPER = op("deeper", "stack", 3, map=[0, 0, 1, 1], then="evaluate")
WIDER = op("wider", "widen", 2, feed_forward=20)
HEADS = op("heads", "add_heads", heads=4) | {"when": {"metric_below": 1e9}}
RATE = op("rate", "set_learning_rate", learning_rate=0.003)
WARM = op("warm", "rewarm") | {"steps": 3}
ROWS = op("rows", "set_batch_size", batch_size=8)
MICRO = op("micro", "set_accumulation", accumulate=2)
ALPHA = op("order", "set_curriculum", alpha=0.5)
THAW = op("thaw", "unfreeze", 2)
MERGE = op("merge", "merge_lora", 2)
SCHEDULE = [DEEPER, WIDER, HEADS, RATE, WARM]


class CurriculumBatches(ResizableBatches):
    """Batches with a curriculum of which only the strength is known."""

    alpha = None

    def order_metrics(self):
        return {}

    def set_alpha(self, alpha):
        self.alpha = alpha


class Sizes(NoOpCallback):
    """Records the rows of every batch, and the learning rates."""

    def __init__(self):
        self.rows, self.rates = [], []

    def on_step(self, context, state, result):
        self.rows.append(len(result.batch.example_ids))
        self.rates.append(float(state.optimizer.learning_rate))


def build(architecture):
    node, vocab_size = architecture
    return build_model(node, kind="classification", num_classes=2, vocab_size=vocab_size)


def grow(operations, callbacks=(), folder=None, resume=False, **settings):
    """Trains for three epochs with a schedule; returns the run."""
    model = build_model(NODE, kind="classification", num_classes=2, vocab_size=20, seed=0)
    data = settings.pop("data", None) or RandomBatches()
    processes = settings.pop("processes", None) or ProcessGroup()
    trainer = make_trainer(**settings)
    context = FitContext("valid/loss", Recorder(), group=processes)
    run = Run(model, data, context)
    run.context.metadata["config"] = {"trainer": {"optimizer": {"groups": ()}}}
    run.state = trainer.init_state(model, run.data)
    run.state.architecture, run.state.new_model = Architecture(NODE, 20), build
    checkpointer = Checkpointer(None, 5, False, folder=folder) if folder else NoCheckpointer()
    hooks = [GrowthSchedule(operations), *callbacks]
    loop = TrainingLoop(trainer, run.context, run.state, FixedBatches(), TASK, hooks, checkpointer)
    loop.run(checkpointer.load_last() if resume else None)
    return run


def logged(run, name):
    return [(step, metrics[name]) for step, metrics in run.context.tracker.lines if name in metrics]


def test_the_counts_of_the_optimizer_state_and_the_change_of_the_outputs_are_logged():
    run = grow([DEEPER, WIDER], ema_decay=0.9)
    # A block has 7 matrices and 2 norms; of a copy the two output matrices are new.
    assert logged(run, "growth/state_carried") == [(3, 4 * 9 + 4 - 4), (5, 4 * 9 + 4)]
    assert logged(run, "growth/state_fresh") == [(3, 4), (5, 0)]
    assert logged(run, "growth/state_dropped") == [(3, 0), (5, 0)]
    assert max(value for _, value in logged(run, "growth/output_change")) < 1e-5
    assert run.state.architecture.node == {**NODE, "num_layers": 4, "intermediate_size": 20}
    assert [step for step, _ in run.state.history.evaluations][:2] == [3, 6]


def test_operations_on_settings_change_neither_weights_nor_optimizer():
    evaluation = op("valid", "set_evaluation", eval_every=5)
    operations = [RATE, WARM, ROWS, MICRO, evaluation, ALPHA]
    expected, run = (
        grow(
            [{**operation, "when": {"metric_below": 9.0}} for operation in schedule],
            [StopAt(6)],
            data=Rows(),
            step=partial(OptimizedStep, **OPTIMIZED_STEP),
        )
        for schedule, Rows in (([], ResizableBatches), (operations, CurriculumBatches))
    )
    assert run.state.progress.growth.done == [operation["id"] for operation in operations]
    assert [text for _, text in run.state.history.events if "skipped" in text] == []
    assert final_state_digest(run.state) == final_state_digest(expected.state)


SLOW = [pytest.param(n, marks=pytest.mark.fault_injection) for n in (1, 2, 3, 5, 6, 7, 8, 10)]


@pytest.mark.parametrize("step", [4, *SLOW])
def test_a_run_killed_in_the_middle_of_a_schedule_resumes_bitwise(tmp_path, step):
    expected = grow(SCHEDULE, ema_decay=0.9)
    killed = grow(SCHEDULE, [StopAt(step)], tmp_path, ema_decay=0.9)
    assert killed.state.progress.step == step
    resumed = grow(SCHEDULE, folder=tmp_path, resume=True, ema_decay=0.9)
    assert final_state_digest(resumed.state) == final_state_digest(expected.state)
    assert resumed.state.progress == expected.state.progress
    assert resumed.state.progress.growth.done == [operation["id"] for operation in SCHEDULE]


class LosesWorker(ProcessGroup):
    """A group in which another process is lost at one of the exchanges; `at` 0 only counts them."""

    def __init__(self, at=0):
        super().__init__()
        self.at, self.exchanges = at, 0

    def all_reduce_max(self, numbers):
        self.exchanges += 1
        if self.exchanges == self.at:
            raise WorkerLostError(self._save_on_loss())
        return super().all_reduce_max(numbers)


@pytest.mark.parametrize("stride", [11, pytest.param(1, marks=pytest.mark.fault_injection)])
def test_a_run_resumes_bitwise_wherever_another_process_was_lost(tmp_path, stride):
    deeper, below = ({**each, "when": {"metric_below": 9.0}} for each in (DEEPER, WIDER))
    schedule = [{**WIDER, "id": "early", "feed_forward": 16}, deeper, RATE, below]
    options = {"ema_decay": 0.9, "max_steps": 7, "eval_every": 3, "epochs": None}
    counted = LosesWorker()
    expected = grow(schedule, processes=counted, **options)
    assert expected.state.progress.growth.done == ["early", "deeper", "rate", "wider"]
    for at in range(2, counted.exchanges + 1, stride):
        (tmp_path / str(at)).mkdir()
        with pytest.raises(WorkerLostError, match="is saved"):
            grow(schedule, folder=tmp_path / str(at), processes=LosesWorker(at), **options)
        resumed = grow(schedule, folder=tmp_path / str(at), resume=True, **options)
        assert final_state_digest(resumed.state) == final_state_digest(expected.state), at
        assert resumed.state.progress == expected.state.progress, at
        for kind in ("evaluations", "best", "best_step"):
            assert getattr(resumed.state.history, kind) == getattr(expected.state.history, kind), at


def test_an_operation_that_does_not_fit_raises():
    unfit = {**WIDER, "feed_forward": 3}
    with pytest.raises(ConfigError, match=r"operations: wider: feed_forward: expected more than"):
        grow([DEEPER, unfit])


class WithFailure(ProcessGroup):
    """A group in which another process fails at the operation at hand."""

    def all_reduce_max(self, numbers):
        return [1] if numbers == [False] else super().all_reduce_max(numbers)


FAILURES = ["changed outputs", "no memory", "another process"]


@pytest.mark.parametrize("failure", FAILURES)
def test_an_operation_that_fails_at_its_step_ends_the_run(failure, monkeypatch):
    choose_units = widths.choose_units
    processes, match = None, failure
    if failure == "changed outputs":  # Here the copies of a unit do not share its output weights.
        monkeypatch.setattr(
            widths, "choose_units", lambda *args: (choose_units(*args)[0], np.ones(20))
        )
        match = "operations: wider: expected outputs within 0.0001 of those before, got"
    elif failure == "no memory":

        def probe_outputs(model, result):
            if model.backbone.layers[0].feed_forward.up.weight.shape[0] > 12:
                raise RuntimeError("[malloc] no memory")
            return mx.zeros(1)

        monkeypatch.setattr(apply, "probe_outputs", probe_outputs)
    else:
        processes = WithFailure()
        match = r"^callbacks.growth.operations: wider: failed in another process$"
    with pytest.raises((ConfigError, RuntimeError), match=match):
        grow([WIDER], epochs=1, processes=processes)


def test_an_evaluation_after_an_operation_replaces_that_of_the_same_step():
    deeper = {**DEEPER, "when": {"metric_below": 9.0}}
    run = grow([deeper], [EarlyStopping(1, 0.0)], learning_rate=0.03)
    assert [step for step, _ in run.state.history.evaluations] == [6, 12, 18]
    assert logged(run, "valid/loss") == run.state.history.evaluations, "sent to the tracker once"
    assert run.context.control.stop_reason == "done"


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_evaluation_after_an_operation_is_made_once_over_a_resume(
    tmp_path, monkeypatch, interrupted
):
    class Kill(NoOpCallback):
        def on_step(self, context, state, result):
            if state.progress.step == 4:
                raise KeyboardInterrupt

    expected = grow([DEEPER], epochs=1).state.history
    with monkeypatch.context() as patch:
        if interrupted:
            patch.setattr(TrainingLoop, "_evaluate", lambda loop: None)  # as after a signal
        with pytest.raises(KeyboardInterrupt):
            grow([DEEPER], [Kill()], tmp_path, epochs=1)
    resumed = grow([DEEPER], folder=tmp_path, resume=True, epochs=1)
    assert [step for step, _ in logged(resumed, "valid/loss")] == [3] * interrupted + [6]
    assert resumed.state.history.evaluations == expected.evaluations


def test_operations_wait_for_the_metric_of_an_evaluation():
    never = {**DEEPER, "when": {"metric_below": -1.0}}
    assert grow([never, WIDER]).state.progress.growth.done == []
    above = {**DEEPER, "when": {"metric_above": 0.0}}
    run = grow([above, HEADS, WIDER])
    # Evaluated at 6, 12 and 18. What comes after `then: evaluate` waits for the next regular evaluation.
    assert logged(run, "growth/done") == [(6, 1.0), (12, 2.0), (14, 3.0)]


def test_the_next_batch_and_step_have_the_new_settings():
    seen = Sizes()
    rows = {**ROWS, "when": {"or_steps": 2}}
    run = grow([rows, RATE, WARM], [seen], data=ResizableBatches(rows=24), epochs=1)
    assert seen.rows == [4, 4, 8, 8]
    assert run.state.planned_steps == 4
    # Each operation follows a step of its own: the fourth step is the first one with the new peak.
    assert seen.rates == pytest.approx([0.01, 0.00933, 0.005, 0.000439], rel=1e-3)


def test_an_override_of_a_resume_replaces_what_an_operation_set(tmp_path):
    grow([RATE, ROWS], [StopAt(2)], tmp_path, data=ResizableBatches())
    saved = Checkpointer(None, 5, False, folder=tmp_path).load_last()
    assert saved.state["progress"].settings.learning_rate == 0.003

    def config(rate, rows):
        return {"trainer": {"learning_rate": rate}, "data": {"batch_size": rows}}

    saved.state["metadata"]["config"] = config(0.01, 4)
    faster = without_overridden_settings(saved, config(0.02, 4))
    expected = replace(saved.state["progress"].settings, learning_rate=None)
    assert faster.state["progress"].settings == expected
    larger = without_overridden_settings(saved, config(0.01, 2))
    assert larger.state["progress"].settings == ChangedSettings(learning_rate=0.003)


def test_a_rollback_returns_to_the_settings_of_the_checkpoint(tmp_path):
    seen = Sizes()

    class Poison(NoOpCallback):
        def on_step(self, context, state, result):
            context.control.save_requested = False  # the checkpoint of the start is the last one
            if state.progress.step == 3 and not state.progress.rollbacks:
                weights = state.model.parameters()
                state.model.update(tree_map(lambda array: array * float("nan"), weights))

    schedule = [{**ROWS, "when": {"or_steps": 2}}, RATE]
    grow([], [StopAt(1)], tmp_path, data=ResizableBatches())
    limits = {"max_steps": 12, "max_nonfinite_steps": 1, "max_rollbacks": 1}
    callbacks, data = [Poison(), seen, StopAt(7)], ResizableBatches()
    run = grow(schedule, callbacks, tmp_path, resume=True, data=data, **limits)
    assert seen.rows == [4, 8, 4, 8, 8]
    assert run.state.progress.settings.learning_rate == 0.003
    assert [rate > 0.003 for rate in seen.rates] == [True, True, True, True, False]


def test_a_grown_model_trains_with_the_optimized_step_and_frozen_layers():
    step = partial(OptimizedStep, **{**OPTIMIZED_STEP, "accumulate": 2})
    freeze = op("freeze", "freeze", 2, patterns=["embedding"])
    accumulate = {**MICRO, "accumulate": 4}
    embeddings = []

    class Watch(NoOpCallback):
        def on_step(self, context, state, result):
            embeddings.append(np.array(state.model.backbone.embedding.weight))

    run = grow([freeze, accumulate, THAW, DEEPER], [Watch()], step=step)
    assert run.state.progress.growth.done == ["freeze", "micro", "thaw", "deeper"]
    moved = [not np.array_equal(a, b) for a, b in pairwise(embeddings)]
    assert moved[:6] == [True, False, False, False, True, True]
    assert logged(run, "growth/state_dropped")[0] == (2, 1.0)
    assert logged(run, "growth/state_fresh")[1] == (5, 1.0)


def test_what_is_frozen_on_the_way_becomes_the_average_that_was_evaluated():
    low, high = op("low", "set_lora", 4, rank=2), op("high", "set_lora", 3, rank=3)
    freeze = op("freeze", "freeze", 2, patterns=["feed_forward.*"])
    run = grow([low, high, MERGE, freeze], ema_decay=0.99, learning_rate=0.05)
    changes = logged(run, "growth/output_change")
    assert len(changes) == 4
    assert max(change for _, change in changes) < 1e-5
    assert not any("lora" in path for path in named_parameters(run.state.model))
