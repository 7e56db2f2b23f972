"""Compiled steps: the same numbers as uncompiled ones, a bounded number of traces, correct state."""

import os
import stat
from functools import partial

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.training.device_batch import to_device
from mlxlab.training.distributed.process_group import ProcessGroup
from mlxlab.training.losses.loss import CrossEntropyLoss
from mlxlab.training.optim.optimizers import adamw, assign_leaves, flatten_arrays
from mlxlab.training.steps import compile
from mlxlab.training.steps.compile import (
    MAX_TRACES,
    CompileBudget,
    CompiledFunction,
    private_kernels,
)
from mlxlab.training.steps.optimized import OptimizedStep
from mlxlab.training.steps.step import PlainStep
from support.models import (
    OPTIMIZED_STEP,
    RandomBatches,
    assert_same,
    make_model,
    step_scalars,
    weights_of,
)

COMPILED = partial(OptimizedStep, **OPTIMIZED_STEP | {"compile": "always"})


def build_step(step, loss=None, model=None):
    """A step on a new model, its model and its optimizer."""
    model = model or make_model()
    optimizer = adamw(0.01, [0.9, 0.999], 1e-8, learning_rate=1e-2)
    optimizer.init(model.trainable_parameters())
    model.train()
    return (
        step(model=model, loss=loss or CrossEntropyLoss(0.0), optimizer=optimizer),
        model,
        optimizer,
    )


def losses_of(step, sizes):
    """Losses of steps on batches of these sizes, with the random numbers seeded as by the trainer."""
    losses = []
    for number, rows in enumerate(sizes):
        mx.random.seed(number)
        losses.append(step_scalars(step(to_device(RandomBatches().batch(np.arange(rows)))))["loss"])
    return losses


def test_a_compiled_step_is_bitwise_equal_to_the_plain_step():
    """With dropout, weight decay and clipping, and batches of two sizes."""
    plain, plain_model, _ = build_step(partial(PlainStep, max_grad_norm=1.0))
    compiled, compiled_model, _ = build_step(COMPILED)
    sizes = [8, 5, 8, 8, 5, 8]
    assert losses_of(plain, sizes) == losses_of(compiled, sizes)
    assert_same(weights_of(plain_model), weights_of(compiled_model))
    compiled(to_device(RandomBatches().batch(np.arange(8))))
    assert len(compiled.full_step.traces) == 2


def test_a_compiled_step_continues_from_weights_and_optimizer_state_that_were_loaded():
    step, model, optimizer = build_step(COMPILED)
    losses_of(step, [8, 8])
    weights = {name: mx.array(leaf) for name, leaf in weights_of(model).items()}
    state = {name: mx.array(leaf) for name, leaf in flatten_arrays(optimizer.state).items()}
    expected = losses_of(step, [8, 8])
    model.load_weights(list(weights.items()))
    assign_leaves(optimizer.state, state)
    assert losses_of(step, [8, 8]) == expected


def test_a_loss_that_reads_values_runs_uncompiled_with_the_same_results(caplog):
    def reading_loss(model, batch):
        assert len(np.array(batch.example_ids))
        return CrossEntropyLoss(0.0)(model, batch)

    step, model, _ = build_step(COMPILED, reading_loss)
    plain, expected, _ = build_step(partial(PlainStep, max_grad_norm=1.0))
    assert losses_of(step, [8, 8]) == losses_of(plain, [8, 8])
    assert caplog.text.count("not compiled") == 1
    assert_same(weights_of(expected), weights_of(model))


def test_shapes_beyond_the_maximum_run_uncompiled_with_one_warning(caplog):
    state = {"sum": mx.array(0.0)}

    def add(x):
        state["sum"] = state["sum"] + x.sum()
        return state["sum"]

    adding = CompiledFunction(add, [state], CompileBudget("always", ProcessGroup()))
    out = [adding(mx.ones(size)).item() for size in [*range(1, 13), 2, 11]]
    assert out == np.cumsum([*range(1, 13), 2, 11]).tolist()
    assert len(adding.traces) == MAX_TRACES
    [record] = caplog.records
    assert "(9,)" in record.getMessage()


class Clock:
    """A clock that the functions below move on: by as much for a trace as for a call."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def doubling(self, seconds, budget) -> CompiledFunction:
        def double(x):
            self.now += seconds
            return x * 2

        return CompiledFunction(double, [], budget)


@pytest.fixture
def clock(monkeypatch):
    """That of compiled steps on a Linux CPU."""
    clock = Clock()
    monkeypatch.setattr(compile, "time", clock)
    monkeypatch.setattr(compile, "on_linux_cpu", lambda: True)
    monkeypatch.setattr(compile, "has_kernel_compiler", lambda: True)
    return clock


@pytest.mark.parametrize(("native", "uncompiled"), [(False, 8), (True, 40)])
def test_auto_compiles_shapes_once_their_steps_have_lost_as_much_time_as_a_trace_takes(
    clock, monkeypatch, native, uncompiled
):
    monkeypatch.setattr(compile.state, "is_active", lambda: native)
    budget = CompileBudget("auto", ProcessGroup())
    seconds = budget.trace_seconds / 2
    double = clock.doubling(seconds, budget)
    traces = []
    for size in [2] * (uncompiled + 1) + [3] * (uncompiled // 2 + 1):
        with budget.timed():
            assert double(mx.ones(size)).tolist() == [2.0] * size
        traces.append(len(double.traces))
    assert budget.trace_seconds == seconds, "the next trace is expected to take as long"
    assert traces == [0] * uncompiled + [1] * (uncompiled // 2 + 1) + [2]


@pytest.mark.parametrize(
    ("variable", "value"), [("PATH", "/nowhere"), ("MLX_DISABLE_COMPILE", "1")]
)
def test_without_a_compiler_auto_never_compiles(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    assert CompileBudget("auto", ProcessGroup()).trace_seconds == float(
        "inf"
    ) or mx.default_device() != mx.Device(mx.cpu)
    assert CompileBudget("always", ProcessGroup()).trace_seconds == 0


def test_kernels_are_built_in_a_folder_that_only_the_user_can_write(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TMPDIR", raising=False)
    with private_kernels():
        inside = os.environ.get("TMPDIR")
    if compile.on_linux_cpu():
        assert inside == str(tmp_path / "mlxlab")
        assert stat.S_IMODE(os.stat(inside).st_mode) == 0o700
    assert "TMPDIR" not in os.environ
