"""Measures memory while a run goes on."""

import mlx.core as mx
import psutil

from mlxlab.bounds import Size
from mlxlab.training.run import Run


class Memory:
    """Logs MLX's active, peak and cached memory and the resident size of the process, in bytes.

    Args:
        every: updates between measurements.
    """

    def __init__(self, every: Size) -> None:
        self.every = every
        self.process = psutil.Process()

    def on_start(self, run: Run) -> None:
        mx.reset_peak_memory()

    def on_step(self, run: Run) -> None:
        if (run.stop == "done" or run.step % self.every == 0) and not self._measured(run):
            run.log(self.measure())

    def on_end(self, run: Run) -> None: ...

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
