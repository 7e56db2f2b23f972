"""Plots of a run, as PNG files in `plots/` and as artifacts."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlxlab.checkpoint.state import History
from mlxlab.data.tokenizers.vocab_size import VocabSizeCurve
from mlxlab.figures import new_figure, save_figure
from mlxlab.files.untrusted import read_json
from mlxlab.metric_names import LEARNING_RATE, LOSS, VALID_LOSS
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import TrainState

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class LearningCurvePlot(Callback):
    """`plots/learning_curve.png`: losses, the monitored metric and the learning rate by step.

    Not of a run that a signal stopped, which must end soon: its resume draws it, and the report has the curves.
    """

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder / "plots"

    def on_end(self, context: FitContext, state: TrainState) -> None:
        history = state.history
        if history.curve and not context.control.stop_signal:
            figure = plot_curve(history, context.monitor)
            save_figure(context.tracker, figure, self.folder / "learning_curve.png")


class VocabSizeCurvePlot(Callback):
    """`plots/vocabulary.png`: bytes per token by vocabulary size, the limits, and the size that was chosen."""

    def __init__(self, *, folder: Path) -> None:
        self.curve, self.plot = (
            folder / "inference" / "vocabulary.json",
            folder / "plots" / "vocabulary.png",
        )

    def on_start(self, context: FitContext, state: TrainState) -> None:
        if not self.curve.is_file() or self.plot.is_file():
            return
        curve = read_json(self.curve, VocabSizeCurve)
        if len(curve.sizes) < 2:
            return
        figure = new_figure(5.4, 3.6)
        axis = figure.subplots()
        axis.plot(curve.sizes, curve.bytes_per_token, marker=".")
        axis.axvline(
            curve.chosen, color="silver", linewidth=5, zorder=0, label=f"chosen: {curve.chosen:,}"
        )
        colors = ("tab:green", "tab:orange", "tab:purple")
        for (name, limit), color in zip(curve.limits.items(), colors, strict=False):
            if limit is not None:
                axis.axvline(
                    limit,
                    color=color,
                    linewidth=0.9,
                    linestyle="--",
                    label=f"limit by {name}: {limit:,}",
                )
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.set(
            xlabel="tokens in the vocabulary",
            ylabel="bytes per token",
            title="size of the vocabulary",
        )
        axis.legend(fontsize=8)
        save_figure(context.tracker, figure, self.plot)


def plot_curve(history: History, monitored: str) -> "Figure":
    losses = [LOSS, VALID_LOSS]
    panels = [("loss", losses)] + ([] if monitored in losses else [(monitored, [monitored])])
    figure = new_figure(4.2 * (len(panels) + 1), 3.2)
    axes = figure.subplots(1, len(panels) + 1)
    for axis, (title, names) in zip(
        axes, [*panels, ("learning rate", [LEARNING_RATE])], strict=True
    ):
        for name in names:
            plot_points(
                axis,
                [(step, metrics[name]) for step, metrics in history.curve if name in metrics],
                name,
            )
        if VALID_LOSS in names or monitored in names:
            axis.axvline(
                history.best_step, color="gray", linewidth=0.8, linestyle=":", label="best"
            )
        axis.set(xlabel="step", title=title)
        axis.set_xlim(left=0)
        axis.locator_params(axis="x", integer=True)
        if len(axis.lines) > 1:
            axis.legend(fontsize=8)
    return figure


def plot_points(axis: "Axes", points: list[tuple[int, float]], label: str) -> None:
    """A line through (step, value); few points are marked."""
    if points:
        axis.plot(*np.array(points).T, marker="." if len(points) < 50 else None, label=label)
