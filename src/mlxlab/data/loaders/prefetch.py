"""BatchIterator made ready by one background thread, so that the device does not wait for the host."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from mlxlab.data.batch import Batch, BatchIterator

TICK = 0.1  # seconds after which a waiting thread looks whether it is still expected


class Prefetch:
    """Keeps up to `depth` batches ready. Its state is that of the batch last handed out, not of the last one made."""

    def __init__(self, source: BatchIterator, depth: int) -> None:
        self.source, self.depth = source, depth
        self.waited = 0.0
        self._place = _place_of(source)
        self._worker: _Worker | None = None
        self._turn = 0  # of the iterator that is in use: an older one must not stop it

    def __iter__(self) -> Iterator[Batch]:
        self._stop()
        self._worker = _Worker(self.source, self.depth)
        turn = self._turn = self._turn + 1
        try:
            while self._worker is not None and turn == self._turn:
                start = time.perf_counter()
                batch, self._place, error = self._worker.take()
                self.waited += time.perf_counter() - start
                if error is not None:
                    raise error
                if batch is None:
                    return
                yield batch
        finally:
            if turn == self._turn:
                self._stop()

    @property
    def batch_size(self) -> int:
        return self.source.batch_size  # type: ignore[attr-defined]

    def resize(self, batch_size: int) -> None:
        """From the next batch handed out on: those made ready are made anew."""
        within = self._worker is not None and not self.at_start
        self._stop()
        self.source.resize(batch_size)  # type: ignore[attr-defined]
        if within:
            self._worker = _Worker(self.source, self.depth)

    @property
    def epoch(self) -> int:
        return self._place.epoch

    @property
    def at_start(self) -> bool:
        return self._place.at_start

    @property
    def count(self) -> int | None:
        return self.source.count

    @property
    def batch_tokens(self) -> int | None:
        return self.source.batch_tokens

    @property
    def skipped(self) -> int | None:
        """Malformed records passed over; None for a source that does not count such."""
        return getattr(self.source, "skipped", None)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._place.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._stop()
        self.source.load_state_dict(state)
        self._place = _place_of(self.source)

    def _stop(self) -> None:
        """Ends the thread and takes the source back to the batch last handed out."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
            self.source.load_state_dict(self._place.state)


class _Place(NamedTuple):
    """Where a source stands, read in the thread that moves it."""

    state: dict[str, Any]
    epoch: int
    at_start: bool


def _place_of(source: BatchIterator) -> _Place:
    return _Place(source.state_dict(), source.epoch, source.at_start)


Item = tuple[Batch | None, _Place, BaseException | None]


class _Worker:
    """One thread that fills a bounded queue with (batch, place after it, error); a batch of None ends the epoch."""

    def __init__(self, source: BatchIterator, depth: int) -> None:
        self.items: queue.Queue[Item] = queue.Queue(depth)
        self.unwanted = threading.Event()
        self.thread = threading.Thread(target=self._fill, args=(source,), name="prefetch", daemon=True)
        self.thread.start()

    def take(self) -> Item:
        """The next item; waits in short ticks, so that signals are seen."""
        while True:
            try:
                return self.items.get(timeout=TICK)
            except queue.Empty:
                if not self.thread.is_alive() and self.items.empty():
                    raise RuntimeError("the prefetch thread ended without a word") from None

    def stop(self) -> None:
        self.unwanted.set()
        self.thread.join()

    def _fill(self, source: BatchIterator) -> None:
        place = _place_of(source)
        try:
            for batch in source:
                place = _place_of(source)
                if not self._put((batch, place, None)):
                    return
            self._put((None, place, None))
        except BaseException as error:  # it is raised again in the thread that takes the batches
            self._put((None, place, error))

    def _put(self, item: Item) -> bool:
        while not self.unwanted.is_set():
            try:
                self.items.put(item, timeout=TICK)
                return True
            except queue.Full:
                continue
        return False
