"""An analysis in a background thread, which uses one processor core."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from threadpoolctl import ThreadpoolController


class AnalysisJob(threading.Thread):
    """Computes the metrics of a step; once it has ended, `metrics` or `error` is set."""

    def __init__(self, step: int, compute: Callable[[], dict[str, float]]) -> None:
        super().__init__(name="analysis", daemon=True)
        self.step = step
        self.metrics: dict[str, float] = {}
        self.error: Exception | None = None
        self._compute = compute

    def run(self) -> None:
        start = time.perf_counter()
        try:
            with one_numpy_thread():
                metrics = self._compute()
        except Exception as error:
            self.error = error
        else:
            self.metrics = metrics | {"analysis/seconds": time.perf_counter() - start}


@contextmanager
def one_numpy_thread() -> Iterator[None]:
    """Limits NumPy's BLAS to one thread, but not that of MLX, another library: training uses it.

    Threads of two libraries on the same cores wait for each other.
    """
    libraries = ThreadpoolController()
    paths = [Path(entry["filepath"]) for entry in libraries.info()]
    of_numpy = [str(path) for path in paths if "numpy" in path.parent.name]
    with libraries.select(filepath=of_numpy).limit(limits=1):
        yield
