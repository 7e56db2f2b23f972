"""Draws the learning curve and the confusion matrix into the run folder, and hands them to the tracker."""

from pathlib import Path
from typing import Any

import numpy as np

from mlxlab.callbacks.plotting import new_figure, save_figure
from mlxlab.training.state import Run


class LearningCurvePlot:
    """`plots/learning_curve.png`: losses, the objective and the learning rate by step.

    Of a classification also `plots/confusion.png`: the best evaluation's counts.
    """

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder / "plots"

    def on_start(self, run: Run) -> None: ...

    def on_step(self, run: Run) -> None: ...

    def on_end(self, run: Run) -> None:
        if run.curve:
            save_figure(run, draw_curve(run), self.folder / "learning_curve.png")
        if run.best_confusion:
            save_figure(run, draw_confusion(run), self.folder / "confusion.png")


def draw_curve(run: Run) -> Any:
    panels = [("loss", ["train/loss", "valid/loss"]), (run.objective.name, [run.objective.name])]
    panels = panels[:1] if run.objective.name in panels[0][1] else panels
    figure = new_figure(4.2 * (len(panels) + 1), 3.2)
    axes = figure.subplots(1, len(panels) + 1)
    for axis, (title, names) in zip(axes, [*panels, ("learning rate", ["train/learning_rate"])], strict=True):
        for name in names:
            points = [(step, metrics[name]) for step, metrics in run.curve if name in metrics]
            if points:
                steps, values = np.array(points).T
                axis.plot(steps, values, marker="." if len(points) < 50 else None, label=name)
        if "valid/loss" in names or run.objective.name in names:
            axis.axvline(run.best_step, color="gray", linewidth=0.8, linestyle=":", label="best")
        axis.set(xlabel="step", title=title)
        axis.legend(fontsize=8)
    return figure


def draw_confusion(run: Run) -> Any:
    counts = np.array(run.best_confusion)
    labels = run.labels or tuple(map(str, range(len(counts))))
    figure = new_figure(3.6, 3.2)
    axis = figure.subplots()
    axis.imshow(counts, cmap="Blues")
    for row, column in np.ndindex(counts.shape):
        dark = counts[row, column] > counts.max() / 2
        axis.text(column, row, counts[row, column], ha="center", va="center", color="white" if dark else "black")
    axis.set_xticks(range(len(counts)), labels)
    axis.set_yticks(range(len(counts)), labels)
    axis.set(xlabel="predicted", ylabel="true", title=f"best evaluation, step {run.best_step}")
    return figure
