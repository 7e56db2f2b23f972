"""Batches of examples of about the same length: little padding, and few shapes.

Lengths are rounded up to one of a few edges, those that pad this data least. An epoch's order, cut into batches, is a
function of (seed, epoch, size of a batch); any place in it is reached without replaying.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from mlxlab.constraints import Size
from mlxlab.data.batch import Batch
from mlxlab.data.loaders.bucket_boundaries import optimal_boundaries
from mlxlab.data.loaders.collate import pad_rows
from mlxlab.data.loaders.loader import DataLoader, check_cursor
from mlxlab.data.rng import Order, counter_hash, epoch_permutation
from mlxlab.errors import ConfigError

BATCHES = 0xBA7C  # keeps the draw of the order of batches apart from others of the same seed

Collate = Callable[[int, np.ndarray, int | None], Batch]  # (epoch, examples, length to pad to) -> their batch


class Batching(Protocol):
    """How many examples make a batch, of `buckets` lengths (None: of any); `fills` up a short one with empty rows.

    `resizable`: whether the size of the batch counts at all.
    """

    buckets: int | None
    fills: bool
    resizable: bool

    def rows(self, size: int, edges: np.ndarray) -> np.ndarray:
        """Examples of a full batch, for each edge."""
        ...


class FixedBatchSize:
    """As many examples in each batch.

    Args:
        buckets: lengths to pad to; fewer shapes are fewer compiled steps, more of them less padding. null takes the
            examples as they come and pads to the longest, rounded up to 8.
    """

    fills = False  # a batch that is short is so in every epoch, and always of the shortest length
    resizable = True

    def __init__(self, buckets: Size | None) -> None:
        self.buckets = buckets

    def rows(self, size: int, edges: np.ndarray) -> np.ndarray:
        return np.full(len(edges), size)


class TokenBudget:
    """About as many tokens in each batch: more of the short examples, fewer of the long ones.

    Args:
        tokens: of a batch, padding included; null is the batch size times the longest length.
        buckets: lengths to pad to.
    """

    fills = True

    def __init__(self, tokens: Size | None, buckets: Size) -> None:
        self.tokens, self.buckets = tokens, buckets
        self.resizable = tokens is None

    def rows(self, size: int, edges: np.ndarray) -> np.ndarray:
        return np.maximum((self.tokens or size * edges[-1]) // edges, 1)


def make_loader(
    lengths: Callable[[int], np.ndarray],
    batching: Batching,
    batch_size: int,
    seed: int,
    collate: Collate,
    fingerprint: str = "",
    longest: np.ndarray | None = None,
) -> "DataLoader | BucketLoader":
    """Shuffled batches of examples of `lengths(epoch)` tokens.

    Args:
        longest: lengths to choose the edges by, all there may be; those of epoch 0 if not given.
    """
    first = lengths(0)
    order = epoch_permutation(len(first), seed)
    if batching.buckets is None:
        return DataLoader(
            len(first), batch_size, order, lambda epoch, places: collate(epoch, places, None), fingerprint
        )
    edges = optimal_boundaries(first if longest is None else longest, batching.buckets)
    return BucketLoader(lengths, edges, batching, batch_size, order, seed, collate, fingerprint)


class BucketBatch(NamedTuple):
    """The examples of one batch, the length they are padded to, and the rows that a full batch of that length has."""

    examples: np.ndarray
    length: int
    rows: int


class BucketLoader:
    """Endless batches, an epoch at a time, of examples whose lengths are known. Every example comes once an epoch.

    The place is kept in examples. A batch of another size, on resume or by `resize`, goes on with those that are left:
    `spent` holds (size, examples) for each size that was used in this epoch.
    """

    def __init__(
        self,
        lengths: Callable[[int], np.ndarray],
        edges: np.ndarray,
        batching: Batching,
        batch_size: int,
        order: Order,
        seed: int,
        collate: Collate,
        fingerprint: str = "",
    ) -> None:
        self.lengths, self.edges, self.batching, self.batch_size = lengths, edges, batching, batch_size
        self.order, self.seed, self.collate, self.fingerprint = order, seed, collate, fingerprint
        self.epoch = 0
        self.spent: list[tuple[int, int]] = []
        self.waited = 0.0
        self.batch_tokens: int | None = None
        self.examples = len(order(0))
        self._plan: Iterator[BucketBatch] | None = None

    def __iter__(self) -> Iterator[Batch]:
        epoch = self.epoch
        while self.epoch == epoch:
            if self._plan is None:
                self._plan = iter(self._rest())
            piece = next(self._plan)
            batch = self.collate(epoch, piece.examples, piece.length)
            self._move(len(piece.examples))
            yield pad_rows(batch, piece.rows) if self.batching.fills else batch

    @property
    def example(self) -> int:
        """How many of this epoch's examples were handed out."""
        return sum(used for _, used in self.spent)

    @property
    def at_start(self) -> bool:
        return self.example == 0

    @property
    def count(self) -> int:
        return len(self._cut(self.order(0), 0, self.batch_size))

    def resize(self, batch_size: int) -> None:
        """From the next batch on; the examples of this epoch that are left are divided anew."""
        if not self.batching.resizable:
            raise ConfigError("data.batching.tokens: a number of tokens leaves no room for another size; use null")
        self.batch_size, self._plan = batch_size, None

    def state_dict(self) -> dict[str, Any]:
        place = {"epoch": self.epoch, "example": self.example, "spent": [list(one) for one in self.spent]}
        return place | {"count": self.examples, "data": self.fingerprint}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a saved place.

        Raises:
            DataError: the place was saved with other data.
        """
        check_cursor(state, self.examples, self.fingerprint)
        self.epoch, self._plan = state["epoch"], None
        self.spent = [(int(size), int(used)) for size, used in state.get("spent", [])]

    def _move(self, count: int) -> None:
        size, used = self.spent.pop() if self.spent and self.spent[-1][0] == self.batch_size else (self.batch_size, 0)
        self.spent.append((size, used + count))
        if self.example >= self.examples:
            self.epoch, self.spent, self._plan = self.epoch + 1, [], None

    def _rest(self) -> list[BucketBatch]:
        """The batches of this epoch that are still to come."""
        order = self.order(self.epoch)
        for size, used in self.spent[:-1]:
            order = _without(order, self._cut(order, self.epoch, size), used)
        if not self.spent:
            return self._cut(order, self.epoch, self.batch_size)
        size, used = self.spent[-1]
        pieces = self._cut(order, self.epoch, size)
        if size == self.batch_size:
            ends = np.cumsum([len(piece.examples) for piece in pieces])
            return pieces[int(np.searchsorted(ends, used, side="right")) :]
        return self._cut(_without(order, pieces, used), self.epoch, self.batch_size)

    def _cut(self, order: np.ndarray, epoch: int, size: int) -> list[BucketBatch]:
        rows = self.batching.rows(size, self.edges)
        pieces = split_by_length(order, self.lengths(epoch), self.edges, rows)
        drawn = counter_hash(self.seed, BATCHES, epoch, np.arange(len(pieces)))
        return [pieces[place] for place in np.argsort(drawn, kind="stable")]


def split_by_length(order: np.ndarray, lengths: np.ndarray, edges: np.ndarray, rows: np.ndarray) -> list[BucketBatch]:
    """The examples of `order` in batches, from the longest to the shortest, within an edge in the order given.

    A batch at the border of two edges is filled up with shorter examples, so only the very last one is short.
    """
    bucket = np.searchsorted(edges, lengths[order])  # the first edge that is long enough
    falling = np.argsort(-bucket, kind="stable")
    order, bucket = order[falling], bucket[falling]
    pieces, start = [], 0
    while start < len(order):
        edge = bucket[start]
        end = start + int(rows[edge])
        pieces.append(BucketBatch(order[start:end], int(edges[edge]), int(rows[edge])))
        start = end
    return pieces


def _without(order: np.ndarray, pieces: list[BucketBatch], used: int) -> np.ndarray:
    """What is left of an order once the first `used` examples of its batches were handed out; the order is kept."""
    taken = np.concatenate([piece.examples for piece in pieces])[:used]
    return order[~np.isin(order, taken)]
