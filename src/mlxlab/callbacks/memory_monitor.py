"""Measures memory while a run goes on, says when it keeps growing, and draws it."""

import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import psutil

from mlxlab.callbacks.plotting import new_figure, save_figure
from mlxlab.constraints import Size
from mlxlab.training.state import Run

NAMES = ("active", "peak", "cache", "resident")
WINDOW = 100  # measurements that the slope is taken over
ENOUGH = 8  # of them, before there is one; the first are of a run that is still settling
LEAK = 1e6  # bytes an update: worth a word


class MemoryMonitor:
    """Logs MLX's active, peak and cached memory and the resident size of the process, in bytes.

    `memory/slope` is by how many bytes an update the active memory grew over the last 100 measurements, by least
    squares; 1 MB or more is said at the end. `plots/memory.png` shows all of them. Where the batch follows the memory,
    the peak is that since its last look.

    Args:
        every: updates between measurements.
    """

    def __init__(self, every: Size, *, folder: Path) -> None:
        self.every, self.folder = every, folder / "plots"
        self.process = psutil.Process()

    def on_start(self, run: Run) -> None:
        mx.reset_peak_memory()

    def on_step(self, run: Run) -> None:
        if (run.stop == "done" or run.step % self.every == 0) and not self._measured(run):
            found = self.measure()
            slope = slope_of([*points(run, "active"), (run.step, found["memory/active"])])
            run.log(found | ({} if slope is None else {"memory/slope": slope}))

    def on_end(self, run: Run) -> None:
        slope = slope_of(points(run, "active"))
        if slope is not None and slope >= LEAK:
            print(f"active memory grew by {slope / 1e6:.1f} MB an update: something is kept", file=sys.stderr)
        if points(run, "active"):
            save_figure(run, draw_memory(run), self.folder / "memory.png")

    def _measured(self, run: Run) -> bool:
        """Also before a resume, where the step was saved before the evaluation that was due."""
        return bool(run.curve) and run.curve[-1][0] == run.step and "memory/active" in run.curve[-1][1]

    def measure(self) -> dict[str, float]:
        return {
            "memory/active": float(mx.get_active_memory()),
            "memory/peak": float(mx.get_peak_memory()),
            "memory/cache": float(mx.get_cache_memory()),
            "memory/resident": float(self.process.memory_info().rss),
        }


def points(run: Run, name: str) -> list[tuple[int, float]]:
    """(step, bytes) of every measurement that the run remembers."""
    return [(step, metrics[f"memory/{name}"]) for step, metrics in run.curve if f"memory/{name}" in metrics]


def slope_of(measured: list[tuple[int, float]]) -> float | None:
    """Bytes an update over the last measurements; None while there are too few."""
    if len(measured) < ENOUGH:
        return None
    steps, sizes = np.array(measured[-WINDOW:], np.float64).T
    return float(np.polyfit(steps - steps.mean(), sizes, 1)[0])


def draw_memory(run: Run) -> Any:
    figure = new_figure(5.6, 3.4)
    axis = figure.subplots()
    for name in NAMES:
        steps, sizes = np.array(points(run, name)).T
        axis.plot(steps, sizes / 1e6, marker="." if len(steps) < 50 else None, label=name)
    axis.set(xlabel="step", ylabel="MB", title="memory", ylim=(0, None))
    axis.legend(fontsize=8)
    return figure
