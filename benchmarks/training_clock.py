"""A callback that measures the CPU time of the steps of a run, and of what its callbacks fit in them."""

import time
from pathlib import Path

from mlxlab.training.callback import Callback, FitContext
from mlxlab.training.state import TrainState


class TrainingClock(Callback):
    """Writes the CPU seconds from before the first step to the end of the fit; imports are start-up, and not in them.

    Args:
        file: is written at the end.
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self._start = 0.0

    def on_start(self, context: FitContext, state: TrainState) -> None:
        import sklearn.ensemble
        import sklearn.linear_model  # noqa: F401

        self._start = time.process_time()

    def on_end(self, context: FitContext, state: TrainState) -> None:
        self.file.write_text(str(time.process_time() - self._start), encoding="utf-8")
