"""Laws of compiled steps: the same numbers, few traces, no surprises for the state."""

import os
import stat
from functools import partial

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.errors import ConfigError
from mlxlab.training.device_batch import to_device
from mlxlab.training.losses.loss import CrossEntropyLoss
from mlxlab.training.optim.optimizers import adamw, assign_leaves, flatten_arrays
from mlxlab.training.steps import compile
from mlxlab.training.steps.compile import MOST_TRACES, CompileBudget, CompiledFunction, private_kernels
from mlxlab.training.steps.optimized import OptimizedStep
from mlxlab.training.steps.step import PlainStep
from support.models import Stream, new_model, numbers, weights_of

SETTINGS = {
    "max_grad_norm": 1.0,
    "activation_checkpointing": False,
    "dtype": "float32",
    "allow_slow_dtype": False,
    "cpu_streams": "one",
}
SETTINGS |= {"retry_on_oom": False}
COMPILED = partial(OptimizedStep, **SETTINGS, accumulate=1, compile="always")


def stepper(step, loss=None, model=None):
    """A step on a new model, its model and its optimizer."""
    model = model or new_model()
    optimizer = adamw(0.01, [0.9, 0.999], 1e-8, learning_rate=1e-2)
    optimizer.init(model.trainable_parameters())
    model.train()
    return step(model=model, loss=loss or CrossEntropyLoss(0.0), optimizer=optimizer), model, optimizer


def walk(step, sizes):
    """Seeded as the trainer does; the losses."""
    losses = []
    for number, rows in enumerate(sizes):
        mx.random.seed(number)
        losses.append(numbers(step(to_device(Stream().batch(np.arange(rows)))))["loss"])
    return losses


def test_a_compiled_step_is_the_plain_step_to_the_last_bit():
    """With dropout, weight decay and clipping, and batches of two sizes."""
    (plain, a, _), (fast, b, _) = stepper(partial(PlainStep, max_grad_norm=1.0)), stepper(COMPILED)
    sizes = [8, 5, 8, 8, 5, 8]
    assert walk(plain, sizes) == walk(fast, sizes)
    for name, leaf in weights_of(a).items():
        np.testing.assert_array_equal(leaf, weights_of(b)[name])
    assert fast(to_device(Stream().batch(np.arange(8)))).retraces == 1


def test_a_compiled_step_goes_on_from_what_is_put_into_model_and_optimizer():
    step, model, optimizer = stepper(COMPILED)
    walk(step, [8, 8])
    weights = {name: mx.array(leaf) for name, leaf in weights_of(model).items()}
    state = {name: mx.array(leaf) for name, leaf in flatten_arrays(optimizer.state).items()}
    expected = walk(step, [8, 8])
    model.load_weights(list(weights.items()))
    assign_leaves(optimizer.state, state)
    assert walk(step, [8, 8]) == expected


def test_a_loss_that_looks_at_its_numbers_is_not_compiled_and_loses_nothing(capsys):
    def looking(model, batch):
        assert len(np.array(batch.example_ids))
        return CrossEntropyLoss(0.0)(model, batch)

    step, model, _ = stepper(COMPILED, looking)
    plain, expected, _ = stepper(partial(PlainStep, max_grad_norm=1.0))
    assert walk(step, [8, 8]) == walk(plain, [8, 8])
    assert capsys.readouterr().err.count("not compiled") == 1
    for name, leaf in weights_of(expected).items():
        np.testing.assert_array_equal(leaf, weights_of(model)[name])


def test_more_shapes_than_a_few_run_uncompiled_and_one_warning_names_the_first():
    state = {"sum": mx.array(0.0)}

    def add(x):
        state["sum"] = state["sum"] + x.sum()
        return state["sum"]

    adding = CompiledFunction(add, [state], CompileBudget("always"))
    with pytest.warns(UserWarning, match=r"trainer.step.compile.*\(9,\)") as seen:
        out = [adding(mx.ones(size)).item() for size in [*range(1, 13), 2, 11]]
    assert out == np.cumsum([*range(1, 13), 2, 11]).tolist()
    assert (len(adding.traces), len(seen)) == (MOST_TRACES, 1)


def test_nothing_is_compiled_until_the_run_has_taken_as_long_as_compiling_would(monkeypatch):
    monkeypatch.setattr(compile, "on_linux_cpu", lambda: True)
    monkeypatch.setattr(compile, "has_kernel_compiler", lambda: True)
    patience = CompileBudget("auto")
    double = CompiledFunction(lambda x: x * 2, [], patience)
    assert (double(mx.array(2.0)).item(), double.traces) == (4.0, set())
    patience.spend(compile.COST)
    assert (double(mx.array(2.0)).item(), len(double.traces)) == (4.0, 1)


@pytest.mark.parametrize(("variable", "value"), [("PATH", "/nowhere"), ("MLX_DISABLE_COMPILE", "1")])
def test_without_a_compiler_auto_never_compiles(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    assert CompileBudget("auto").seconds == float("inf") or mx.default_device() != mx.Device(mx.cpu)
    assert CompileBudget("always").seconds == 0


def test_kernels_are_built_where_nobody_else_can_write(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TMPDIR", raising=False)
    with private_kernels():
        inside = os.environ.get("TMPDIR")
    if compile.on_linux_cpu():
        assert inside == str(tmp_path / "mlxlab")
        assert stat.S_IMODE(os.stat(inside).st_mode) == 0o700
    assert "TMPDIR" not in os.environ


def halves(**changes):
    return partial(OptimizedStep, **SETTINGS | {"accumulate": 1, "compile": "always", "cpu_streams": "two"} | changes)


def test_two_streams_are_the_plain_step_to_rounding():
    """200 updates, batches of two sizes and of a single row; in parts too."""
    sizes = [8, 5, 8, 1] * 50
    model = partial(new_model, dropout=0.0)
    expected = walk(stepper(partial(PlainStep, max_grad_norm=1.0), model=model())[0], sizes)
    for parts in (1, 2):
        np.testing.assert_allclose(
            walk(stepper(halves(accumulate=parts), model=model())[0], sizes), expected, atol=1e-4
        )


@pytest.mark.skipif(not compile.on_linux_cpu(), reason="for CPUs where MLX uses one core")
def test_halves_at_once_and_one_after_the_other_agree_to_the_last_bit():
    """A run goes over from the one to the other when compiling pays: nobody may see when."""
    results = []
    for mode in ("always", "never"):
        step, model, _ = stepper(halves(compile=mode), model=new_model(dropout=0.0))
        results.append((walk(step, [8, 5, 8, 8]), weights_of(model)))
    assert results[0][0] == results[1][0]
    for name, leaf in results[0][1].items():
        np.testing.assert_array_equal(leaf, results[1][1][name])


def test_a_model_with_dropout_has_no_halves():
    step, _, _ = stepper(halves(cpu_streams="auto"))
    assert step.two is None
    with pytest.raises(ConfigError, match="dropout"):
        stepper(halves())
