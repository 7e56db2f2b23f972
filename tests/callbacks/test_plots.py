"""The plots of a run that ends, and of one that a signal stopped."""

import pytest

from mlxlab.callbacks.memory_monitor import MemoryMonitor
from mlxlab.callbacks.plots import LearningCurvePlot
from support.models import NoOpCallback, fit, make_run, make_trainer


class StopAt(NoOpCallback):
    """Asks to stop after a step, as a signal does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, context, state, result) -> None:
        if state.progress.step == self.step:
            context.control.stop_signal = 15


@pytest.mark.parametrize(("step", "plots"), [(2, []), (-1, ["learning_curve.png", "memory.png"])])
def test_a_run_that_a_signal_stopped_ends_without_plots(tmp_path, step, plots):
    callbacks = [StopAt(step), MemoryMonitor(1, folder=tmp_path), LearningCurvePlot(folder=tmp_path)]
    run = fit(make_trainer(max_steps=4, epochs=None), make_run(), callbacks, seed=1)
    assert run.control.stop_reason == ("done" if plots else "signal 15")
    assert run.state.history.curve
    assert sorted(path.name for path in tmp_path.glob("plots/*")) == plots
