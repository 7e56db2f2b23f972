"""Batches prepared by a background thread, so that the device does not wait for the host."""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from mlxlab.data.batch import Batch, BatchIterator


class _Position(NamedTuple):
    """The position of a source, read in the thread that moves it."""

    state: dict[str, object]
    epoch: int
    at_epoch_start: bool


def _position_of(source: BatchIterator) -> _Position:
    return _Position(source.state_dict(), source.epoch, source.at_epoch_start)


class _Worker:
    """A thread that prepares the next `depth` batches, each with the position after it; None ends the epoch."""

    def __init__(self, source: BatchIterator, depth: int) -> None:
        self._source, self._batches = source, iter(source)
        self._pool = ThreadPoolExecutor(1, "prefetch")
        self._futures: deque[Future[tuple[Batch | None, _Position]]] = deque()
        for _ in range(depth):
            self._submit()

    def take(self) -> tuple[Batch | None, _Position]:
        """Raises whatever the source raised."""
        self._submit()
        return self._futures.popleft().result()

    def stop(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _submit(self) -> None:
        self._futures.append(self._pool.submit(lambda: (next(self._batches, None), _position_of(self._source))))


class Prefetch:
    """Keeps up to `depth` batches ready. Its state is that of the batch last yielded, not of the last one prepared.

    Implements `BatchIterator`.
    """

    def __init__(self, source: BatchIterator, depth: int) -> None:
        self.source, self.depth = source, depth
        self._position = _position_of(source)
        self._worker: _Worker | None = None
        self._generation = 0  # of the iterator in use: an older one must not stop the newer one's thread

    def __iter__(self) -> Iterator[Batch]:
        self._stop()
        self._worker = _Worker(self.source, self.depth)
        generation = self._generation = self._generation + 1
        try:
            while self._worker is not None and generation == self._generation:
                batch, self._position = self._worker.take()
                if batch is None:
                    return
                yield batch
        finally:
            if generation == self._generation:
                self._stop()

    @property
    def epoch(self) -> int:
        return self._position.epoch

    @property
    def at_epoch_start(self) -> bool:
        return self._position.at_epoch_start

    @property
    def batch_size(self) -> int:
        return self.source.batch_size

    @property
    def batches_per_epoch(self) -> int | None:
        return self.source.batches_per_epoch

    @property
    def tokens_per_batch(self) -> int | None:
        return self.source.tokens_per_batch

    @property
    def skipped_records(self) -> int:
        return self.source.skipped_records

    def resize(self, batch_size: int) -> None:
        """Batches that were prepared with the old size are discarded."""
        mid_epoch = self._worker is not None and not self.at_epoch_start
        self._stop()
        self.source.resize(batch_size)
        if mid_epoch:
            self._worker = _Worker(self.source, self.depth)

    def state_dict(self) -> dict[str, object]:
        return dict(self._position.state)

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self._stop()
        self.source.load_state_dict(state)
        self._position = _position_of(self.source)

    def _stop(self) -> None:
        """Ends the thread and moves the source back to the batch last yielded."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
            self.source.load_state_dict(self._position.state)


def prefetch(batches: BatchIterator, depth: int) -> BatchIterator:
    """The same batches, up to `depth` of them prepared in the background; 0 prepares each when it is asked for."""
    return Prefetch(batches, depth) if depth else batches
