"""One job at a time in a background thread; its result, or its error, is kept until it is taken."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


@contextmanager
def one_numpy_thread() -> Iterator[None]:
    """Limits NumPy's own BLAS to one thread. That of MLX, another library, is left alone: training uses it.

    Threads of two libraries on the same cores wait for each other: decompositions took several times as long.
    """
    from threadpoolctl import ThreadpoolController

    libraries = ThreadpoolController()
    of_numpy = [
        entry["filepath"]
        for entry in libraries.info()
        if "numpy" in Path(entry["filepath"]).parent.name
    ]
    with libraries.select(filepath=of_numpy).limit(limits=1):
        yield


class BackgroundWorker(Generic[T]):
    """Runs one function at a time, whose result belongs to a `step`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.step = -1  # of the job that runs, or whose result was not taken yet
        self._thread: threading.Thread | None = None
        self._result: T | Exception | None = None

    @property
    def busy(self) -> bool:
        """True until the result of the last job was taken."""
        return self._thread is not None

    @property
    def done(self) -> bool:
        return self._thread is not None and not self._thread.is_alive()

    def start(self, step: int, function: Callable[[], T]) -> None:
        assert not self.busy, "one job at a time"

        def work() -> None:
            try:
                self._result = function()
            except Exception as error:
                self._result = error

        self.step, self._result = step, None
        self._thread = threading.Thread(target=work, name=self.name, daemon=True)
        self._thread.start()

    def wait(self, seconds: float | None) -> bool:
        """Waits for the job, without a limit if None; returns whether it has ended."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self.done

    def abandon(self) -> None:
        """Forgets the job, which continues until the process ends."""
        self._thread = None

    def take(self) -> T | Exception:
        """Waits for the job, and returns its result or the exception that it raised."""
        assert self._thread is not None, "no job was started"
        self._thread.join()
        self._thread, result = None, self._result
        assert result is not None
        return result
