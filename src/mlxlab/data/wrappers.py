"""Batches prepared by a background thread, and the first batches, repeated."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import NamedTuple, TypedDict

from mlxlab.data.batch import Batch, BatchIterator, State, check_position, set_curriculum_alpha
from mlxlab.schema.constraints import Count


class Position(NamedTuple):
    """What is known of a source after a batch."""

    state: State
    epoch: int
    at_epoch_start: bool
    order_metrics: dict[str, float]


Prepared = tuple[Batch | None, Position]  # None ends the epoch


def wrap_batches(
    batches: BatchIterator, prefetch: int, overfit_batches: int | None
) -> BatchIterator:
    """Batches of which `prefetch` are prepared in advance, or only the first `overfit_batches`."""
    if prefetch:
        batches = Prefetch(batches, prefetch)
    if overfit_batches is not None:
        batches = RepeatBatches(batches, overfit_batches)
    return batches


class _Wrapper:
    """What a wrapper passes on; `_change` changes the source after the batch last yielded."""

    source: BatchIterator

    @property
    def batch_size(self) -> int:
        return self.source.batch_size

    @property
    def tokens_per_batch(self) -> int | None:
        return self.source.tokens_per_batch

    @property
    def skipped_records(self) -> int:
        return self.source.skipped_records

    def resize(self, batch_size: int) -> None:
        self._change(partial(self.source.resize, batch_size))

    def set_alpha(self, alpha: float) -> None:
        self._change(partial(set_curriculum_alpha, self.source, alpha))

    def _change(self, change: Callable[[], None]) -> None:
        raise NotImplementedError


class Prefetch(_Wrapper):
    """Keeps up to `depth` batches ready. Its state is that of the batch last yielded.

    Implements `BatchIterator`.
    """

    def __init__(self, source: BatchIterator, depth: int) -> None:
        self.source = source
        self.depth = depth
        self._position = _position(source)
        self._worker: Generator[Prepared] | None = None
        self._iteration = 0  # An older iterator must not stop the thread of the one in use.

    def __iter__(self) -> Iterator[Batch]:
        self._stop()
        self._iteration += 1
        iteration = self._iteration
        epoch = self.epoch
        try:
            while iteration == self._iteration and self.epoch == epoch:
                if self._worker is None:  # A change of the source in mid-epoch stops the worker.
                    self._worker = _prepare(self.source, self.depth)
                batch, self._position = next(self._worker)
                if batch is None:
                    return
                yield batch
        finally:
            if iteration == self._iteration:
                self._stop()

    @property
    def epoch(self) -> int:
        return self._position.epoch

    @property
    def at_epoch_start(self) -> bool:
        return self._position.at_epoch_start

    @property
    def batches_per_epoch(self) -> int | None:
        return self.source.batches_per_epoch

    def order_metrics(self) -> dict[str, float]:
        return self._position.order_metrics

    def state_dict(self) -> State:
        return dict(self._position.state)

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        self._stop()
        self._iteration += 1
        self.source.load_state_dict(state)
        self._position = _position(self.source)

    def _change(self, change: Callable[[], None]) -> None:
        """Batches that were prepared before are discarded."""
        self._stop()
        change()
        self._position = _position(self.source)._replace(order_metrics=self._position.order_metrics)

    def _stop(self) -> None:
        """Ends the thread and moves the source back to the batch last yielded."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
            self.source.load_state_dict(self._position.state)


def _prepare(source: BatchIterator, depth: int) -> Generator[Prepared]:
    """Batches that a thread prepares, each with the position after it."""
    batches = iter(source)
    pool = ThreadPoolExecutor(1, "prefetch")

    def prepare() -> Prepared:
        return next(batches, None), _position(source)

    try:
        futures = deque(pool.submit(prepare) for _ in range(depth))
        while True:
            futures.append(pool.submit(prepare))
            yield futures.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _position(source: BatchIterator) -> Position:
    metrics = {}
    if hasattr(source, "order_metrics"):
        metrics = source.order_metrics()
    return Position(source.state_dict(), source.epoch, source.at_epoch_start, metrics)


class RepeatState(TypedDict):
    """The position of the repeated batches in the data set, and the position within them."""

    first: State
    epoch: Count
    index: Count


class RepeatBatches(_Wrapper):
    """Every epoch is the first `number` batches after the position of `source`, or fewer.

    The batches are made once and kept in memory, so that masks and order do not vary by epoch.
    Overfitting them shows whether a model learns at all. Implements `BatchIterator`.
    """

    def __init__(self, source: BatchIterator, number: int) -> None:
        self.source = source
        self.number = number
        self.first = source.state_dict()
        self.epoch = 0
        self.index = 0
        self._cached: list[Batch] = []

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch
        while self.epoch == epoch:
            if not self._cached:
                self._cached = list(islice(self.source, self.number))
            last = len(self._cached) - 1
            batch = self._cached[min(self.index, last)]  # A larger batch size may have left fewer.
            self.index += 1
            if self.index > last:
                self.epoch = epoch + 1
                self.index = 0
            yield batch

    @property
    def at_epoch_start(self) -> bool:
        return self.index == 0

    @property
    def batches_per_epoch(self) -> int | None:
        available = self.source.batches_per_epoch
        if available is None:
            return self.number
        return min(available, self.number)

    def order_metrics(self) -> dict[str, float]:
        """None: the source does not know how often its batches were repeated."""
        return {}

    def _change(self, change: Callable[[], None]) -> None:
        """The first batches are made again."""
        self.source.load_state_dict(self.first)
        change()
        self.first = self.source.state_dict()
        self._cached = []

    def state_dict(self) -> State:
        return {"first": self.first, "epoch": self.epoch, "index": self.index}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        position = check_position(dict(state), RepeatState)
        self.source.load_state_dict(position["first"])
        self.first = position["first"]
        self.epoch = position["epoch"]
        self.index = position["index"]
        self._cached = []
