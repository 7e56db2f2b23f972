"""MemoryMonitor: logged values and growth."""

import gc

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.callbacks.memory_monitor import MemoryMonitor, growth_per_step, points
from support.models import NoOpCallback, Recorder, fit, make_run, make_trainer


class Leak(NoOpCallback):
    """A callback that leaks `size` bytes each step."""

    def __init__(self, size: int) -> None:
        self.size, self.arrays = size, []

    def on_step(self, context, state, result) -> None:
        self.arrays.append(mx.zeros(self.size // 4))
        mx.eval(self.arrays[-1])


def train(leak: int):
    gc.collect()  # arrays of an earlier test are freed now, not during the run
    callbacks = [Leak(leak), MemoryMonitor(2)]
    return fit(make_trainer(epochs=5), make_run(tracker=Recorder()), callbacks, seed=1)


def test_a_leak_is_measured_and_reported(caplog):
    run = train(leak=2_000_000)
    assert run.state.history.latest("memory/growth_per_step") == pytest.approx(2e6, rel=0.1)
    assert "active memory grew by 2.0 MB per step" in caplog.text


def test_every_value_is_logged_every_n_steps_and_without_a_leak_there_is_no_growth(caplog):
    run = train(leak=0)
    assert abs(run.state.history.latest("memory/growth_per_step")) < 1000  # 0.1 MB in 100 steps
    assert "grew" not in caplog.text
    for name in ("active", "peak", "cache", "rss"):
        assert [step for step, _ in points(run.state.history, name)] == list(
            range(2, run.state.progress.step + 1, 2)
        )


def test_growth_is_fitted_to_the_last_measurements_once_there_are_enough():
    assert growth_per_step([(step, 1.0) for step in range(7)]) is None
    steps = np.arange(300)
    sizes = np.where(steps < 200, 5.0 * steps, 1000.0)
    assert growth_per_step(list(zip(steps, sizes, strict=True))) == pytest.approx(0.0, abs=1e-9)
    assert growth_per_step([(10 * step, 30.0 * step) for step in range(20)]) == pytest.approx(3.0)
