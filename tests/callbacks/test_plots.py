"""The plots of a run: what they show, and that a run that a signal stopped ends without them."""

import pytest

from mlxlab.callbacks.memory_monitor import MemoryMonitor
from mlxlab.callbacks.plots import LearningCurvePlot, plot_curve
from mlxlab.checkpoint.state import History
from support.models import NoOpCallback, fit, make_run, make_trainer


class StopAt(NoOpCallback):
    """Asks to stop after a step, as a signal does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, context, state, result) -> None:
        if state.progress.step == self.step:
            context.control.stop_signal = 15


@pytest.mark.usefixtures("drawn_plots")
@pytest.mark.parametrize(("step", "plots"), [(2, []), (-1, ["learning_curve.png", "memory.png"])])
def test_a_run_that_a_signal_stopped_ends_without_plots(tmp_path, step, plots):
    callbacks = [
        StopAt(step),
        MemoryMonitor(1, folder=tmp_path),
        LearningCurvePlot(folder=tmp_path),
    ]
    run = fit(make_trainer(max_steps=4, epochs=None), make_run(), callbacks, seed=1)
    assert run.control.stop_reason == ("done" if plots else "signal 15")
    assert run.state.history.curve
    assert sorted(path.name for path in tmp_path.glob("plots/*")) == plots


def test_curves_begin_at_step_0_and_only_panels_with_several_lines_have_a_legend():
    history = History()
    for step in (1, 2):
        history.add_metrics(
            step,
            {"train/loss": 1 / step, "train/learning_rate": 0.1 * step, "valid/loss": 1 / step},
        )
    losses, rates = plot_curve(history, "valid/loss").axes
    assert [axis.get_xlim()[0] for axis in (losses, rates)] == [0, 0]
    assert all(tick == int(tick) for tick in rates.get_xticks())
    assert [text.get_text() for text in losses.get_legend().get_texts()] == [
        "train/loss",
        "valid/loss",
        "best",
    ]
    assert rates.get_legend() is None
