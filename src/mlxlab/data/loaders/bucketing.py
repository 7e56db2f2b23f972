"""Length bucketing: batches of examples of about the same length, so that there is little padding and few shapes.

Lengths are rounded up to one of a few boundaries, chosen to minimise the padding of this data. How an epoch is divided
into batches is a function of (seed, epoch, batch size).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mlxlab.data.loaders.loader import Collate, DataLoader, PlannedBatch
from mlxlab.data.rng import Stream, epoch_permutation, permutation
from mlxlab.schema.constraints import Size

MAX_CANDIDATES = 512  # lengths that are considered as boundaries; more are quantized


@dataclass(frozen=True)
class FixedBatchSize:
    """Gives every batch the same number of examples.

    Args:
        num_buckets: lengths to pad to; fewer of them are fewer compiled shapes, more of them less padding. null takes
            the examples in their shuffled order and pads to the longest of a batch, rounded up to a multiple of 8.
    """

    num_buckets: Size | None
    fills = (
        False  # Only the last and shortest bucket has a short batch, of one shape in every epoch.
    )

    def rows(self, size: int, boundaries: np.ndarray) -> np.ndarray:
        return np.full(len(boundaries), size)


@dataclass(frozen=True)
class TokenBudget:
    """About the same number of tokens in every batch: as many as the batch size has of the longest examples.

    Args:
        num_buckets: lengths to pad to.
    """

    num_buckets: Size
    fills = True

    def rows(self, size: int, boundaries: np.ndarray) -> np.ndarray:
        return size * boundaries[-1] // boundaries


def make_loader(
    lengths: Callable[[int], np.ndarray],
    batching: FixedBatchSize | TokenBudget,
    batch_size: int,
    seed: int,
    collate: Collate,
    fingerprint: str,
    all_lengths: np.ndarray,
) -> DataLoader:
    """Shuffled batches of examples of `lengths(epoch)` tokens; `all_lengths` fix the boundaries."""
    count = len(lengths(0))
    order = epoch_permutation(count, seed)
    if batching.num_buckets is None:
        return DataLoader(count, batch_size, order, collate, fingerprint)
    boundaries = optimal_boundaries(all_lengths, batching.num_buckets)

    def divide(order: np.ndarray, epoch: int, size: int) -> list[PlannedBatch]:
        rows = batching.rows(size, boundaries)
        batches = split_by_length(order, lengths(epoch), boundaries, rows, fills=batching.fills)
        shuffled = permutation(len(batches), seed, Stream.BATCH_ORDER, epoch)
        return [batches[index] for index in shuffled]

    return DataLoader(count, batch_size, order, collate, fingerprint, divide)


def split_by_length(
    order: np.ndarray,
    lengths: np.ndarray,
    boundaries: np.ndarray,
    rows: np.ndarray,
    *,
    fills: bool,
) -> list[PlannedBatch]:
    """The examples of `order` in batches of `rows[i]` for boundary i, the longest first.

    The last batch of a bucket is completed with examples of the next shorter one, so that only the
    last batch of all is short. With `fills` empty rows are added to that.
    """
    bucket = np.searchsorted(boundaries, lengths[order])  # the first boundary that is long enough
    longest_first = np.argsort(-bucket, kind="stable")
    order = order[longest_first]
    bucket = bucket[longest_first]
    batches: list[PlannedBatch] = []
    start = 0
    while start < len(order):
        size = int(rows[bucket[start]])
        length = int(boundaries[bucket[start]])
        batches.append(PlannedBatch(order[start : start + size], length, size if fills else 0))
        start += size
    return batches


def optimal_boundaries(lengths: np.ndarray, count: int) -> np.ndarray:
    """The at most `count` lengths, rising, that pad these lengths least when each is rounded up to one of them."""
    values, counts = _candidates(np.maximum(lengths, 1))
    num_up_to = np.cumsum(counts)  # (V,) examples of at most each length
    costs = values * num_up_to.astype(float)  # token slots, if one boundary holds all up to it
    # A layer for each number of boundaries: the boundary before the last, plus 1; 0 for none.
    layers: list[np.ndarray] = []
    for _ in range(min(count, len(values)) - 1):
        # One more boundary j holds the lengths i+1..j; the others hold 0..i as well as they can.
        num_between = num_up_to[None] - num_up_to[:, None]
        candidates = costs[:, None] + values[None] * num_between  # (V, V) by i and j
        candidates[np.tril_indices(len(values))] = np.inf
        best = candidates.min(axis=0)
        is_better = best < costs
        layers.append(np.where(is_better, candidates.argmin(axis=0) + 1, 0))
        costs = np.where(is_better, best, costs)

    last = len(values) - 1
    boundaries = [values[last]]
    for layer in reversed(layers):
        if layer[last]:
            last = int(layer[last]) - 1
            boundaries.append(values[last])
    return np.array(boundaries[::-1])


def _candidates(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lengths that may be boundaries, rising, and how many examples have each; many are rounded up."""
    values, counts = np.unique(lengths, return_counts=True)
    if len(values) <= MAX_CANDIDATES:
        return values, counts
    step = -(-int(values[-1]) // MAX_CANDIDATES)
    rounded = -(-lengths // step) * step
    return np.unique(np.minimum(rounded, values[-1]), return_counts=True)
