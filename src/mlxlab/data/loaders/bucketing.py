"""Length bucketing: batches of examples of about the same length, so that there is little padding and few shapes.

Lengths are rounded up to one of a few boundaries, chosen to minimise the padding of this data. How an epoch is divided
into batches is a function of (seed, epoch, batch size).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlxlab.constraints import Size
from mlxlab.data.loaders.loader import Collate, DataLoader, PlannedBatch
from mlxlab.data.rng import Stream, epoch_permutation, permutation

MAX_CANDIDATES = 512  # lengths that are considered as boundaries; more are quantized


@dataclass(frozen=True)
class FixedBatchSize:
    """The same number of examples in every batch.

    Args:
        num_buckets: lengths to pad to; fewer of them are fewer compiled shapes, more of them less padding. null takes
            the examples in their shuffled order and pads to the longest of a batch, rounded up to a multiple of 8.
    """

    num_buckets: Size | None
    fills, fixed_by = (
        False,
        "",
    )  # only the last and shortest bucket has a short batch, in every epoch the same shape

    def rows(self, size: int, boundaries: np.ndarray) -> np.ndarray:
        return np.full(len(boundaries), size)


@dataclass(frozen=True)
class TokenBudget:
    """About the same number of tokens in every batch: more of the short examples, fewer of the long ones.

    Args:
        tokens: of a batch, padding included; null is the batch size times the longest length.
        num_buckets: lengths to pad to.
    """

    tokens: Size | None
    num_buckets: Size
    fills = True

    @property
    def fixed_by(self) -> str:
        return "" if self.tokens is None else f"data.batching.tokens={self.tokens}"

    def rows(self, size: int, boundaries: np.ndarray) -> np.ndarray:
        return np.maximum((self.tokens or size * boundaries[-1]) // boundaries, 1)


def make_loader(
    lengths: Callable[[int], np.ndarray],
    batching: FixedBatchSize | TokenBudget,
    batch_size: int,
    seed: int,
    collate: Collate,
    fingerprint: str = "",
    all_lengths: np.ndarray | None = None,
) -> DataLoader:
    """Shuffled batches of examples of `lengths(epoch)` tokens; `all_lengths` (None: epoch 0) fix the boundaries."""
    first = lengths(0)
    order = epoch_permutation(len(first), seed)
    if batching.num_buckets is None:
        return DataLoader(len(first), batch_size, order, collate, fingerprint)
    boundaries = optimal_boundaries(
        first if all_lengths is None else all_lengths, batching.num_buckets
    )

    def divide(order: np.ndarray, epoch: int, size: int) -> list[PlannedBatch]:
        batches = split_by_length(
            order, lengths(epoch), boundaries, batching.rows(size, boundaries)
        )
        shuffled = [
            batches[index] for index in permutation(len(batches), seed, Stream.BATCH_ORDER, epoch)
        ]
        return shuffled if batching.fills else [batch._replace(rows=0) for batch in shuffled]

    return DataLoader(
        len(first), batch_size, order, collate, fingerprint, divide, batching.fixed_by
    )


def split_by_length(
    order: np.ndarray, lengths: np.ndarray, boundaries: np.ndarray, rows: np.ndarray
) -> list[PlannedBatch]:
    """The examples of `order` in batches of `rows[i]` for boundary i, the longest first; in a bucket as in `order`.

    A bucket's last batch is completed with examples of the next shorter one, so only the last batch of all is short.
    """
    bucket = np.searchsorted(boundaries, lengths[order])  # the first boundary that is long enough
    longest_first = np.argsort(-bucket, kind="stable")
    order, bucket = order[longest_first], bucket[longest_first]
    batches, start = [], 0
    while start < len(order):
        size, length = int(rows[bucket[start]]), int(boundaries[bucket[start]])
        batches.append(PlannedBatch(order[start : start + size], length, size))
        start += size
    return batches


def optimal_boundaries(lengths: np.ndarray, count: int) -> np.ndarray:
    """The at most `count` lengths, rising, that pad these lengths least when each is rounded up to one of them."""
    values, counts = np.unique(np.maximum(lengths, 1), return_counts=True)
    if len(values) > MAX_CANDIDATES:
        step = -(-int(values[-1]) // MAX_CANDIDATES)
        quantized = np.minimum(-(-np.maximum(lengths, 1) // step) * step, values[-1])
        values, counts = np.unique(quantized, return_counts=True)
    below = np.concatenate([[0], np.cumsum(counts)])  # examples shorter than each value
    costs = values * below[1:].astype(
        float
    )  # token slots, if a single edge covers all values up to this one
    chosen = [
        np.zeros(len(values), int)
    ]  # by number of edges: where the last but one lies, plus 1; 0: nowhere
    for _ in range(min(count, len(values)) - 1):
        # With one more edge: the last one covers the values i+1..j, the others do 0..i as well as they can.
        candidate_costs = costs[:, None] + values[None] * (below[1:][None] - below[1:][:, None])
        candidate_costs[np.tril_indices(len(values))] = np.inf
        better = candidate_costs.min(axis=0) < costs
        chosen.append(np.where(better, candidate_costs.argmin(axis=0) + 1, 0))
        costs = np.where(better, candidate_costs.min(axis=0), costs)
    edges, last = [], len(values) - 1
    for layer in reversed(chosen[1:]):
        if layer[last]:
            edges.append(values[last])
            last = int(layer[last]) - 1
    return np.array([*edges, values[last]][::-1])
