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
from mlxlab.extensions.growth.apply import check_change
from mlxlab.extensions.growth.callback import GrowthSchedule
from mlxlab.extensions.growth.operations import widths
from mlxlab.models.build import Architecture, build_model
from mlxlab.models.layers import named_parameters
from mlxlab.run.resume.start import without_overridden_settings
from mlxlab.training.callback import FitContext
from mlxlab.training.checkpointer import Checkpointer, NoCheckpointer, final_state_digest
from mlxlab.training.distributed.process_group import ProcessGroup
from mlxlab.training.loop import TrainingLoop
from mlxlab.training.optim.optimizers import flatten_arrays, sgd
from mlxlab.training.optim.schedules import cosine
from mlxlab.training.state import NO_STEP
from mlxlab.training.steps.optimized import OptimizedStep
from mlxlab.training.steps.step import PlainStep
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
PLAIN_COPY = {**DEEPER, "map": [0, 1, 1], "preserve": False}
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
    groups = settings.pop("groups", ())
    data = settings.pop("data", None) or RandomBatches()
    processes = settings.pop("processes", None) or ProcessGroup()
    if groups:
        settings["optimizer"] = partial(
            sgd, weight_decay=0.0, momentum=0.9, nesterov=False, groups=groups
        )
    trainer = make_trainer(**settings)
    context = FitContext("valid/loss", Recorder(), group=processes)
    run = Run(model, data, context)
    run.context.metadata["config"] = {"trainer": {"optimizer": {"groups": groups}}}
    run.state = trainer.init_state(model, run.data)
    run.state.architecture, run.state.new_model = Architecture(NODE, 20), build
    checkpointer = Checkpointer(None, 5, False, folder=folder) if folder else NoCheckpointer()
    hooks = [GrowthSchedule(operations), *callbacks]
    loop = TrainingLoop(trainer, run.context, run.state, FixedBatches(), TASK, hooks, checkpointer)
    loop.run(checkpointer.load_last() if resume else None)
    return run


def logged(run, name):
    return [(step, metrics[name]) for step, metrics in run.context.tracker.lines if name in metrics]


def test_the_counts_of_the_optimizer_state_are_logged():
    run = grow([DEEPER, WIDER], ema_decay=0.9)
    # A block has 7 matrices and 2 norms; of a copy the two output matrices are new.
    assert logged(run, "growth/state_carried") == [(3, 4 * 9 + 4 - 4), (5, 4 * 9 + 4)]
    assert logged(run, "growth/state_fresh") == [(3, 4), (5, 0)]
    assert logged(run, "growth/state_dropped") == [(3, 0), (5, 0)]
    assert max(value for _, value in logged(run, "growth/output_change")) < 1e-5
    assert len(named_parameters(run.state.model)) == 4 * 9 + 4
    assert run.state.architecture.node == {**NODE, "num_layers": 4, "intermediate_size": 20}
    assert [step for step, _ in run.state.history.evaluations][:2] == [3, 6]
    assert [step for step, _ in run.state.history.events] == [3, 5]


def test_copied_statistics_follow_the_weights():
    before, after = (
        grow(schedule, [StopAt(2)]).state for schedule in ([], [{**WIDER, "when": {"or_steps": 2}}])
    )
    weights, moments = (
        {**named_parameters(s.model), **flatten_arrays(s.optimizer.state)} for s in (before, after)
    )
    arrays = {**named_parameters(after.model), **moments}
    layer = "backbone.layers.0.feed_forward"
    old_up, up = (np.array(each[f"{layer}.up.weight"]) for each in (weights, arrays))
    old_down, down = (np.array(each[f"{layer}.down.weight"]) for each in (weights, arrays))
    # A copy has the input weights of its unit, and a share of its output weights.
    unit = (up[:, None] == old_up).all(axis=2).argmax(axis=1)
    share = down[0] / old_down[0, unit]
    assert len(set(unit)) == 12
    assert (share < 0.9).sum() == 16  # 8 units, each in two
    for name, power in (("m", 1), ("v", 2)):
        old, new = (
            np.array(each[f"states.0.{layer}.up.weight.{name}"]) for each in (weights, moments)
        )
        assert np.abs(old).max() > 0
        np.testing.assert_allclose(new, old[unit] * share[:, None] ** power, rtol=1e-4)
        old, new = (
            np.array(each[f"states.0.{layer}.down.weight.{name}"]) for each in (weights, moments)
        )
        np.testing.assert_array_equal(new, old[:, unit])
    assert int(moments["states.0.step"]) == int(weights["states.0.step"]) == 2


def test_operations_on_settings_change_neither_weights_nor_optimizer():
    operations = [
        RATE,
        WARM,
        ROWS,
        MICRO,
        op("valid", "set_evaluation", eval_every=5),
        ALPHA,
    ]
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


def test_the_change_of_the_outputs_is_that_of_both_models():
    batches = []

    class Watch(NoOpCallback):
        def on_step(self, context, state, result):
            batches.append(result.batch)

    before, after = (grow(schedule, [StopAt(3), Watch()]) for schedule in ([], [PLAIN_COPY]))
    tokens, segment_ids = (
        mx.array(array[:2]) for array in (batches[-1].tokens, batches[-1].segment_ids)
    )
    for run in (before, after):
        run.state.model.eval()
    old, new = (run.state.model(tokens, segment_ids) for run in (before, after))
    change = mx.abs(new - old).max().item()
    assert change > 1e-3
    assert logged(after, "growth/output_change") == [(3, pytest.approx(change, rel=1e-4))]


@pytest.mark.parametrize(("largest", "allowed"), [(0.1, 1e-4), (50.0, 5e-3)])
def test_the_limit_of_a_change_grows_with_outputs_above_one(largest, allowed):
    outputs = mx.array([[largest, -largest / 2]])
    check_change(0.9 * allowed, outputs)
    for change in (1.1 * allowed, float("nan")):
        with pytest.raises(ConfigError, match="expected outputs within"):
            check_change(change, outputs)


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
    with pytest.raises(
        ConfigError,
        match=r"^callbacks.growth.operations: wider: feed_forward: expected more than 12",
    ):
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


@pytest.mark.parametrize("operation", [ROWS, ALPHA], ids=["batch size", "curriculum"])
def test_a_setting_that_fails_in_another_process_is_kept_in_none(operation):
    data = CurriculumBatches()
    state = grow([], [StopAt(2)], data=data).state
    context = FitContext("valid/loss", Recorder(), group=WithFailure())
    due = {**operation, "when": {"or_steps": 2}}
    with pytest.raises(ConfigError, match="failed in another process"):
        GrowthSchedule([due]).on_step(context, state, NO_STEP)
    assert (data.batch_size, data.alpha, state.progress.settings) == (4, None, ChangedSettings())


def test_an_operation_that_a_resume_makes_up_for_is_checked_on_validation_rows(monkeypatch):
    monkeypatch.setattr("mlxlab.extensions.growth.apply.MAX_CHANGE", -1)
    state = grow([], [StopAt(1)]).state
    state.progress.growth.step = -5
    context = FitContext("valid/loss", Recorder(), valid=FixedBatches())
    with pytest.raises(ConfigError, match="expected outputs within"):
        GrowthSchedule([WIDER]).on_step(context, state, NO_STEP)
    monkeypatch.setattr("mlxlab.extensions.growth.apply.MAX_CHANGE", -0.5)
    GrowthSchedule([PLAIN_COPY]).on_step(context, state, NO_STEP)
    assert state.history.latest("growth/output_change") > 1e-3


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


def test_a_longer_resume_after_a_change_of_the_batch_size_has_a_longer_plan(tmp_path):
    seen = Sizes()
    grow([ROWS], folder=tmp_path, data=ResizableBatches(), max_steps=2)
    run = grow([ROWS], [seen], tmp_path, resume=True, data=ResizableBatches(), max_steps=4)
    assert run.state.planned_steps == 4
    assert seen.rates[0] > seen.rates[1]


def test_a_schedule_begins_again_also_where_less_than_its_warm_up_is_left():
    seen = Sizes()
    restart = op("warm", "rewarm", 16, restart=True) | {"steps": 1}
    run = grow([restart], [seen], schedule=partial(cosine, warmup=4, final_lr_ratio=0.0))
    assert run.state.planned_steps == 18
    assert seen.rates[16] == pytest.approx(seen.rates[0])
    assert seen.rates[17] == pytest.approx(seen.rates[1])


@pytest.mark.parametrize(("stop", "says"), [(100, True), (4, False)])
def test_a_run_that_ends_says_what_is_left_and_one_that_is_stopped_does_not(caplog, stop, says):
    late = {**WIDER, "when": {"or_steps": 50}}
    with caplog.at_level("INFO"):
        grow([DEEPER, late], [StopAt(stop)], epochs=1)
    line = "growth: ends with 1 of 2 done"
    assert (line in caplog.messages) == says


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


def test_adapters_come_and_go():
    low, high = op("low", "set_lora", 2, rank=2), op("high", "set_lora", 2, rank=3)
    run = grow([low, high, MERGE, DEEPER])
    assert max(value for _, value in logged(run, "growth/output_change")) < 1e-5
    assert logged(run, "growth/state_carried")[0] == (2, 2.0)  # the classifier
    assert not any("lora" in path for path in named_parameters(run.state.model))
    assert mx.isfinite(run.state.model.backbone.embedding.weight).all()


def test_what_is_frozen_on_the_way_becomes_the_average_that_was_evaluated():
    low, high = op("low", "set_lora", 4, rank=2), op("high", "set_lora", 3, rank=3)
    freeze = op("freeze", "freeze", 2, patterns=["feed_forward.*"])
    run = grow([low, high, MERGE, freeze], ema_decay=0.99, learning_rate=0.05)
    changes = logged(run, "growth/output_change")
    assert len(changes) == 4
    assert max(change for _, change in changes) < 1e-5


def test_a_group_of_new_weights_alone_counts_its_steps_from_zero():
    matrices = ["attention.*", "feed_forward.*", "head.*"]
    freeze = op("freeze", "freeze", 2, patterns=matrices)
    state = flatten_arrays(grow([freeze, THAW], [StopAt(7)]).state.optimizer.state)
    assert [int(state[f"states.{group}.step"]) for group in (0, 1)] == [3, 7]


def test_weights_that_are_unfrozen_take_the_rate_of_their_group():
    groups = [
        {"pattern": "layers.0.*", "lr_scale": 0.5},
        {"pattern": "layers.1.*", "lr_scale": 0.25},
    ]
    freeze = op("freeze", "freeze", patterns=["layers.0.*"])
    run = grow([freeze, THAW], [StopAt(5)], groups=groups)
    state = flatten_arrays(run.state.optimizer.state)
    full = run.state.optimizer.learning_rate
    for name, scale in {"layers.0.": 0.5, "layers.1.": 0.25, "head.": 1.0}.items():
        numbers = {path.split(".")[1] for path in state if name in path}
        assert numbers
        rates = {float(state[f"states.{number}.learning_rate"] / full) for number in numbers}
        assert rates == {scale}
    assert run.state.progress.growth.done == ["freeze", "thaw"]


def test_the_step_is_made_and_compiled_again_only_where_its_code_changes():
    made = []

    def step(accumulate=1, **options):
        made.append(accumulate)
        return PlainStep(1.0, **options)

    operations = [
        RATE,
        WARM,
        op("often", "set_evaluation", eval_every=9),
        ROWS,
        MICRO,
        {**WIDER, "when": {"or_steps": 1}},
    ]
    run = grow(operations, [StopAt(7)], step=step, data=ResizableBatches(rows=48))
    assert len(run.state.progress.growth.done) == 6
    assert made == [1, 1, 2, 2], "at first, and for the last three operations"
