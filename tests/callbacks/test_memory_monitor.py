"""What is told of memory: the figures, whether they grow, the plot."""

import mlx.core as mx
import numpy as np
import pytest

from mlxlab.callbacks.memory_monitor import MemoryMonitor, points, slope_of
from support.models import TASK, Fixed, Recorder, new_run, new_trainer


class Keeps:
    """A callback that leaks: some bytes each step."""

    def __init__(self, size: int) -> None:
        self.size, self.kept = size, []

    def on_start(self, run) -> None: ...

    def on_step(self, run) -> None:
        self.kept.append(mx.zeros(self.size // 4))
        mx.eval(self.kept[-1])

    def on_end(self, run) -> None: ...


def fit(folder, leak: int):
    run = new_run(tracker=Recorder())
    new_trainer(epochs=5).fit(run, Fixed(), TASK, [Keeps(leak), MemoryMonitor(2, folder=folder)], seed=1)
    return run


def test_a_leak_is_measured_and_said(tmp_path, capsys):
    run = fit(tmp_path, leak=2_000_000)
    assert run.metrics["memory/slope"] == pytest.approx(2e6, rel=0.1)
    assert "active memory grew by 2.0 MB an update" in capsys.readouterr().err


def test_a_run_that_keeps_nothing_has_no_slope(tmp_path, capsys):
    run = fit(tmp_path, leak=0)
    assert abs(run.metrics["memory/slope"]) < 1000  # 0.1 MB in 100 updates
    assert "grew" not in capsys.readouterr().err


def test_every_figure_is_logged_at_its_cadence_and_drawn(tmp_path):
    run = fit(tmp_path, leak=0)
    for name in ("active", "peak", "cache", "resident"):
        assert [step for step, _ in points(run, name)] == list(range(2, run.step + 1, 2))
    assert (tmp_path / "plots" / "memory.png").read_bytes()[:4] == b"\x89PNG"
    assert [path.name for path in run.tracker.artifacts] == ["memory.png"]


def test_the_slope_needs_measurements_and_forgets_old_ones():
    assert slope_of([(step, 1.0) for step in range(7)]) is None
    steps = np.arange(300)
    sizes = np.where(steps < 200, 5.0 * steps, 1000.0)
    assert slope_of(list(zip(steps, sizes, strict=True))) == pytest.approx(0.0, abs=1e-9)
    assert slope_of([(10 * step, 30.0 * step) for step in range(20)]) == pytest.approx(3.0)


def test_a_picture_that_cannot_be_written_costs_a_line(tmp_path, capsys):
    (tmp_path / "plots").write_text("in the way")
    run = fit(tmp_path, leak=0)
    assert run.stop == "done"
    assert f"{tmp_path / 'plots' / 'memory.png'}: not drawn:" in capsys.readouterr().err
