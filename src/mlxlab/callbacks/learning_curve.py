"""Plots the learning curve and the confusion matrix into the run folder, and logs them as artifacts."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlxlab.callbacks.plotting import new_figure, save_figure
from mlxlab.metric_names import LEARNING_RATE, LOSS, VALID_LOSS
from mlxlab.training.context import FitContext
from mlxlab.training.state import History, StepResult, TrainState

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class LearningCurvePlot:
    """`plots/learning_curve.png`: losses, the monitored metric and the learning rate by step.

    Of a classification also `plots/confusion.png`: the counts of the best evaluation.
    """

    runs_on_all_ranks = False

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder / "plots"

    def on_start(self, context: FitContext, state: TrainState) -> None: ...

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None: ...

    def on_end(self, context: FitContext, state: TrainState) -> None:
        history = state.history
        if history.curve:
            figure = plot_curve(history, context.monitor.name)
            save_figure(context.tracker, figure, self.folder / "learning_curve.png")
        if history.best_confusion:
            save_figure(context.tracker, plot_confusion(history, context.labels), self.folder / "confusion.png")


def plot_curve(history: History, monitored: str) -> "Figure":
    losses = [LOSS, VALID_LOSS]
    panels = [("loss", losses)] + ([] if monitored in losses else [(monitored, [monitored])])
    figure = new_figure(4.2 * (len(panels) + 1), 3.2)
    axes = figure.subplots(1, len(panels) + 1)
    for axis, (title, names) in zip(axes, [*panels, ("learning rate", [LEARNING_RATE])], strict=True):
        for name in names:
            points = [(step, metrics[name]) for step, metrics in history.curve if name in metrics]
            if points:
                steps, values = np.array(points).T
                axis.plot(steps, values, marker="." if len(points) < 50 else None, label=name)
        if VALID_LOSS in names or monitored in names:
            axis.axvline(history.best_step, color="gray", linewidth=0.8, linestyle=":", label="best")
        axis.set(xlabel="step", title=title)
        axis.legend(fontsize=8)
    return figure


def plot_confusion(history: History, labels: tuple[str, ...]) -> "Figure":
    counts = np.array(history.best_confusion)
    labels = labels or tuple(map(str, range(len(counts))))
    figure = new_figure(3.6, 3.2)
    axis = figure.subplots()
    axis.imshow(counts, cmap="Blues")
    for row, column in np.ndindex(counts.shape):
        dark = counts[row, column] > counts.max() / 2
        axis.text(column, row, str(counts[row, column]), ha="center", va="center", color="white" if dark else "black")
    axis.set_xticks(range(len(counts)), labels)
    axis.set_yticks(range(len(counts)), labels)
    axis.set(xlabel="predicted", ylabel="true", title=f"best evaluation, step {history.best_step}")
    return figure
