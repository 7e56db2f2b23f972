"""Draws the learning curve into the run folder, and hands it to the tracker."""

from pathlib import Path

import numpy as np

from mlxlab.training.run import Run


class LearningCurve:
    """`plots/learning_curve.png`: losses, the objective and the learning rate by step."""

    def __init__(self, *, folder: Path) -> None:
        self.path = folder / "plots" / "learning_curve.png"

    def on_start(self, run: Run) -> None: ...

    def on_step(self, run: Run) -> None: ...

    def on_end(self, run: Run) -> None:
        if run.curve:
            self.path.parent.mkdir(exist_ok=True)
            draw_curve(run, self.path)
            run.tracker.artifact(self.path, "plots")


def draw_curve(run: Run, path: Path) -> None:
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
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def new_figure(width: float, height: float):  # type: ignore[no-untyped-def]
    """A figure without pyplot: no window system, no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure
