"""What a kernel does besides computing: threads, streams, processes, wrong inputs, memory."""

import re
import subprocess
import sys
import threading
import time

import mlx.core as mx
import numpy as np
import pytest

from mlxlab import backend
from mlxlab.backend.ops.activations import gelu
from mlxlab.backend.ops.native import kernels, self_check

pytestmark = pytest.mark.usefixtures("native")

ACTIVATE = """
from mlxlab import backend
backend.prepare()
import mlx.core as mx
from mlxlab.backend.ops.native import kernels
from mlxlab.backend.ops.native.activation import activate
activate("require")
"""


def run(script: str, seconds: float = 60.0, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", ACTIVATE + script]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, **options)


def every_result():
    """Values and gradients of all kernels, at sizes of many tasks."""
    cases = self_check.row_cases(700, 130, 300) | self_check.attention_cases(150, 4, 2, 36)
    results = self_check.results(cases, self_check.NATIVE)
    return [np.array(x) for arrays in results.values() for x in arrays]


def test_results_do_not_depend_on_the_number_of_threads():
    try:
        kernels.set_threads(1)
        expected = every_result()
        for threads in (2, 5):
            kernels.set_threads(threads)
            for actual, wanted in zip(every_result(), expected, strict=True):
                np.testing.assert_array_equal(actual, wanted)
    finally:
        kernels.set_threads(backend.blas_threads())


def test_streams_of_two_threads_compute_at_the_same_time():
    expected, results = every_result(), []

    def work():
        mx.set_default_stream(mx.new_stream(mx.cpu))
        results.append(every_result())
        threading.Event().wait()  # MLX aborts the process when a thread that has a stream exits

    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    deadline = time.monotonic() + 60
    while len(results) < 2 and time.monotonic() < deadline:
        np.testing.assert_array_equal(every_result()[0], expected[0])
    assert len(results) == 2
    for result in results:
        for actual, wanted in zip(result, expected, strict=True):
            np.testing.assert_array_equal(actual, wanted)


def zeros(*shape, dtype=mx.float32):
    return mx.zeros(shape, dtype)


def norm(x, weight):
    return kernels.norm(x, weight, None, 1e-5, centered=True)


def attend(queries, keys):
    return kernels.attention(zeros(*queries), zeros(*keys), zeros(*keys), scale=1.0, causal=True)


@pytest.mark.parametrize(
    ("function", "inputs", "message"),
    [
        (kernels.linear, (zeros(3, 4), zeros(5, 6)), "linear: (3, 4) does not fit weights (5, 6)"),
        (kernels.linear, (zeros(3, 4), zeros(5, 4), zeros(4)), "expected a bias (5,)"),
        (kernels.linear, (zeros(3, 4, dtype=mx.bfloat16), zeros(5, 4)), "float32, got bfloat16"),
        (norm, (zeros(3, 4), zeros(5)), "expected (4,), got (5,)"),
        (norm, (zeros(3, 0), zeros(0)), "empty input"),
        (kernels.activation, ("gelu", zeros(3), zeros(4)), "activation: (3,) and (4,)"),
        (kernels.activation, ("gelu", zeros(2**16, 2**15)), "more than 2^31 elements"),
        (kernels.cross_entropy, (zeros(3, 4), zeros(2), 0.0), "logits (3, 4) and targets (2,)"),
        (kernels.kl_divergence, (zeros(3, 4), zeros(3, 5), 1.0), "(3, 4) and (3, 5)"),
        (kernels.rope, (zeros(1, 1, 3, 5), zeros(3, 5)), "expected (B, H, T, even)"),
        (kernels.dropout, (zeros(3), zeros(3, dtype=mx.uint32), 1, 1.0), "a key of two words"),
        (kernels.embedding, (zeros(3), zeros(3)), "expected a table (V, D)"),
        (attend, ((1, 3, 5, 8), (1, 2, 5, 8)), "key-value heads do not divide the heads"),
        (attend, ((1, 2, 5, 8), (1, 2, 6, 8)), "keys do not fit the queries"),
        (attend, ((1, 1, 2**16, 1), (1, 1, 2**16, 1)), "more than 2^31 weights"),
    ],
)
def test_wrong_inputs_are_refused(function, inputs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        function(*inputs)


def test_nan_and_infinity_reach_the_result_and_indices_out_of_range_are_nan():
    x = mx.array([[1.0, float("nan"), 2.0], [1.0, 2.0, 3.0]])
    weight = mx.ones((3, 3))
    results = [
        kernels.linear(x, weight),
        kernels.activation("gelu", x),
        kernels.activation("silu", x),
        kernels.norm(x, mx.ones(3), None, 1e-5, centered=True),
        kernels.cross_entropy(x, mx.array([0, 1]), 0.0)[:, None],
        kernels.attention(*[x[:, None, None]] * 3, scale=1.0, causal=False)[:, 0, 0],
    ]
    for result in results:
        assert np.isnan(np.array(result)).any(axis=1).tolist() == [True, False]
    assert np.isnan(kernels.square_sum([x]).item())
    ids = mx.array([0, 3, -1])
    rows = np.array(kernels.embedding(ids, weight))
    assert np.isnan(rows).all(axis=1).tolist() == [0, 1, 1]
    losses = np.array(kernels.cross_entropy(weight, ids, 0.0))
    assert np.isnan(losses).tolist() == [0, 1, 1]


def test_what_the_kernels_do_not_take_is_computed_by_mlx():
    assert kernels.usable(mx.ones(3))
    for x in (mx.ones(3, mx.float16), mx.zeros((0, 3)), mx.zeros((2**16, 2**15))):
        assert not kernels.usable(x)
    assert gelu(mx.zeros((0, 3))).shape == (0, 3)


@pytest.mark.slow
def test_a_program_may_end_while_a_kernel_computes():
    done = run("x = mx.random.normal((4000, 2000)); mx.async_eval(kernels.linear(x, x))")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("wrong", [float("nan"), 2.0])
def test_the_self_check_refuses_wrong_values_and_wrong_gradients(monkeypatch, wrong):
    monkeypatch.setenv("MLXLAB_CUSTOM_OPS", "0")
    assert self_check.check() is None
    right = kernels.rope
    monkeypatch.setattr(kernels, "rope", lambda x, table: right(x, table) * wrong)
    assert "rotary positions" in self_check.check()
    function = mx.custom_function(right)
    function.vjp(lambda inputs, cotangent, output: [cotangent * wrong, inputs[1] * 0])
    monkeypatch.setattr(kernels, "rope", function)
    assert "rotary positions" in self_check.check()


@pytest.mark.fault_injection
def test_ten_thousand_steps_do_not_take_more_memory():
    done = run(
        """
import resource
from functools import partial
import mlx.optimizers as optim
from mlxlab.backend.ops.native import self_check
cases = self_check.row_cases(64, 32, 48) | self_check.attention_cases(33, 2, 1, 8)
def step():
    self_check.results(cases, self_check.NATIVE)
for count in range(10_000):
    step()
    if count == 1_000: before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4096, "more than 4 MB"
""",
        seconds=1200.0,
    )
    assert done.returncode == 0, done.stderr[-2000:]
