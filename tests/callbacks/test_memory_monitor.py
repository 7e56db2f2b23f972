"""What is told of memory: the figures, whether they grow, the plot."""

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.callbacks.memory_monitor import MemoryMonitor, growth_per_step, points
from support.models import Hook, Recorder, fit, new_run, new_trainer


class Keeps(Hook):
    """A callback that leaks: some bytes each step."""

    def __init__(self, size: int) -> None:
        self.size, self.kept = size, []

    def on_step(self, context, state, result) -> None:
        self.kept.append(mx.zeros(self.size // 4))
        mx.eval(self.kept[-1])


def train(folder, leak: int):
    callbacks = [Keeps(leak), MemoryMonitor(2, folder=folder)]
    return fit(new_trainer(epochs=5), new_run(tracker=Recorder()), callbacks, seed=1)


def test_a_leak_is_measured_and_said(tmp_path, caplog):
    run = train(tmp_path, leak=2_000_000)
    assert run.state.history.latest("memory/growth_per_step") == pytest.approx(2e6, rel=0.1)
    assert "active memory grew by 2.0 MB per step" in caplog.text


def test_a_run_that_keeps_nothing_has_no_slope(tmp_path, caplog):
    run = train(tmp_path, leak=0)
    assert abs(run.state.history.latest("memory/growth_per_step")) < 1000  # 0.1 MB in 100 updates
    assert "grew" not in caplog.text


def test_every_figure_is_logged_at_its_cadence_and_drawn(tmp_path):
    run = train(tmp_path, leak=0)
    for name in ("active", "peak", "cache", "rss"):
        assert [step for step, _ in points(run.state.history, name)] == list(range(2, run.state.progress.step + 1, 2))
    assert (tmp_path / "plots" / "memory.png").read_bytes()[:4] == b"\x89PNG"
    assert [path.name for path in run.context.tracker.artifacts] == ["memory.png"]


def test_the_slope_needs_measurements_and_forgets_old_ones():
    assert growth_per_step([(step, 1.0) for step in range(7)]) is None
    steps = np.arange(300)
    sizes = np.where(steps < 200, 5.0 * steps, 1000.0)
    assert growth_per_step(list(zip(steps, sizes, strict=True))) == pytest.approx(0.0, abs=1e-9)
    assert growth_per_step([(10 * step, 30.0 * step) for step in range(20)]) == pytest.approx(3.0)


def test_a_picture_that_cannot_be_written_costs_a_line(tmp_path, caplog):
    (tmp_path / "plots").write_text("in the way")
    run = train(tmp_path, leak=0)
    assert run.control.stop_reason == "done"
    assert f"{tmp_path / 'plots' / 'memory.png'}: not written:" in caplog.text
