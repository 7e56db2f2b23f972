"""Measures memory during training, and warns when it keeps growing."""

import logging

import mlx.core as mx
import numpy as np
import psutil

from mlxlab.checkpoint.state import History
from mlxlab.schema.constraints import Size
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState

logger = logging.getLogger(__name__)

WINDOW = 100  # measurements that the slope is fitted to
MIN_MEASUREMENTS = 8  # before a slope is fitted; the first ones are of the start-up
MIN_LEAK = 1e6  # bytes per step that are reported


class MemoryMonitor(Callback):
    """Logs memory in bytes.

    `memory/active`, `memory/peak`, `memory/cache` are MLX's, `memory/rss` is the resident set size of the process.
    `memory/growth_per_step` is the slope of the active memory over the last 100 measurements (least squares); at the
    end 1 MB per step or more is reported. With an adaptive batch size the peak is that since its last measurement.

    Args:
        every_steps: steps between measurements.
    """

    def __init__(self, every_steps: Size) -> None:
        self.every_steps = every_steps
        self.process = psutil.Process()

    def on_start(self, context: FitContext, state: TrainState) -> None:
        mx.reset_peak_memory()

    def on_step(self, context: FitContext, state: TrainState, result: StepResult) -> None:
        step = state.progress.step
        due = context.control.stop_reason == "done" or step % self.every_steps == 0
        # A run that was stopped between this step and its evaluation measured it before the resume.
        if not due or "memory/active" in state.history.at(step):
            return
        metrics = {
            "memory/active": float(mx.get_active_memory()),
            "memory/peak": float(mx.get_peak_memory()),
            "memory/cache": float(mx.get_cache_memory()),
            "memory/rss": float(self.process.memory_info().rss),
        }
        slope = growth_per_step(
            [*points(state.history, "active"), (step, metrics["memory/active"])]
        )
        if slope is not None:
            metrics["memory/growth_per_step"] = slope
        context.log(state, metrics)

    def on_end(self, context: FitContext, state: TrainState) -> None:
        slope = growth_per_step(points(state.history, "active"))
        if slope is not None and slope >= MIN_LEAK:
            logger.warning(
                f"active memory grew by {slope / 1e6:.1f} MB per step: something is never freed"
            )


def points(history: History, name: str) -> list[tuple[int, float]]:
    """(step, bytes) of every measurement in the history."""
    return [
        (step, metrics[f"memory/{name}"])
        for step, metrics in history.curve
        if f"memory/{name}" in metrics
    ]


def growth_per_step(measured: list[tuple[int, float]]) -> float | None:
    """Bytes per step over the last measurements; None while there are too few."""
    if len(measured) < MIN_MEASUREMENTS:
        return None
    steps, sizes = np.array(measured[-WINDOW:], np.float64).T
    return float(np.polyfit(steps - steps.mean(), sizes, 1)[0])
