"""Measures memory during training."""

import mlx.core as mx
import psutil

from mlxlab.constraints import Size
from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import StepResult, TrainState


class MemoryMonitor(Callback):
    """Logs memory in bytes.

    `memory/active`, `memory/peak`, `memory/cache` are MLX's, `memory/rss` is the resident set size of the process.
    With an adaptive batch size the peak is that since its last measurement.

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
        context.log(state, metrics)
