"""Batches prepared by a background thread, so that the device does not wait for the host."""

import queue
import threading
from collections.abc import Generator, Iterator, Mapping
from typing import NamedTuple

from mlxlab.data.batch import Batch, BatchIterator
from mlxlab.data.loaders.wait_timer import WaitTimer

TICK = 0.1  # seconds between two checks by a waiting thread of whether it should stop


def prefetch(batches: BatchIterator, depth: int) -> BatchIterator:
    """The same batches, up to `depth` of them prepared in the background; 0 prepares each when it is asked for."""
    return Prefetch(batches, depth) if depth else batches


class Prefetch:
    """Keeps up to `depth` batches ready. Its state is that of the batch last yielded, not of the last one prepared.

    Implements `BatchIterator`.
    """

    def __init__(self, source: BatchIterator, depth: int) -> None:
        self.source, self.depth = source, depth
        self.timer = WaitTimer()
        self._position = _position_of(source)
        self._worker: _Worker | None = None
        self._generation = 0  # of the iterator in use: an older one must not stop the newer one's thread

    def __iter__(self) -> Iterator[Batch]:
        return self.timer.timed(self._rest_of_epoch())

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
    def wait_seconds(self) -> float:
        return self.timer.seconds

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

    def _rest_of_epoch(self) -> Generator[Batch, None, None]:
        self._stop()
        self._worker = _Worker(self.source, self.depth)
        generation = self._generation = self._generation + 1
        try:
            while self._worker is not None and generation == self._generation:
                batch, self._position, error = self._worker.take()
                if error is not None:
                    raise error
                if batch is None:
                    return
                yield batch
        finally:
            if generation == self._generation:
                self._stop()

    def _stop(self) -> None:
        """Ends the thread and moves the source back to the batch last yielded."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
            self.source.load_state_dict(self._position.state)


class _Position(NamedTuple):
    """The position of a source, read in the thread that moves it."""

    state: dict[str, object]
    epoch: int
    at_epoch_start: bool


def _position_of(source: BatchIterator) -> _Position:
    return _Position(source.state_dict(), source.epoch, source.at_epoch_start)


Item = tuple[Batch | None, _Position, BaseException | None]


class _Worker:
    """A thread that fills a bounded queue with (batch, position after it, error); a batch of None ends the epoch."""

    def __init__(self, source: BatchIterator, depth: int) -> None:
        self.items: queue.Queue[Item] = queue.Queue(depth)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._fill, args=(source,), name="prefetch", daemon=True)
        self.thread.start()

    def take(self) -> Item:
        """The next item; waits in short ticks, so that signals are handled."""
        while True:
            try:
                return self.items.get(timeout=TICK)
            except queue.Empty:
                if not self.thread.is_alive() and self.items.empty():
                    raise RuntimeError("the prefetch thread ended without an item or an error") from None

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join()

    def _fill(self, source: BatchIterator) -> None:
        position = _position_of(source)
        try:
            for batch in source:
                position = _position_of(source)
                if not self._put((batch, position, None)):
                    return
            self._put((None, position, None))
        except BaseException as error:  # raised again in the consumer's thread
            self._put((None, position, error))

    def _put(self, item: Item) -> bool:
        while not self.stopping.is_set():
            try:
                self.items.put(item, timeout=TICK)
                return True
            except queue.Full:
                continue
        return False
