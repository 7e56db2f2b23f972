"""Sequences of uneven length as one padded batch, every id and label checked: MLX has no bounds checks."""

from collections.abc import Sequence

import numpy as np

from mlxlab.data.batch import Batch
from mlxlab.errors import DataError

MULTIPLE = 8  # lengths are rounded up to it: few shapes, few compiled traces


def padded_length(longest: int, max_length: int) -> int:
    """`longest` rounded up to a multiple of 8, at most `max_length`."""
    return min(-(-max(longest, 1) // MULTIPLE) * MULTIPLE, max_length)


def pad(
    sequences: Sequence[np.ndarray], pad_id: int, max_length: int, length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (B, T) and mask (B, T), int32, padded on the right to `length`, or else to the longest.

    Longer ones are cut at `max_length`.
    """
    length = padded_length(max(map(len, sequences), default=1), max_length) if length is None else length
    tokens = np.full((len(sequences), length), pad_id, np.int32)
    mask = np.zeros((len(sequences), length), np.int32)
    for row, sequence in enumerate(sequences):
        used = min(len(sequence), length)
        tokens[row, :used] = sequence[:used]
        mask[row, :used] = 1
    return tokens, mask


def pad_rows(batch: Batch, rows: int) -> Batch:
    """The batch with as many `rows`, so that it is no new shape; those added have id -1, one token, and no weight."""
    lacking = rows - len(batch.ids)
    if lacking <= 0:
        return batch
    grow = lambda field: np.concatenate([field, np.repeat(field[:1], lacking, axis=0)])  # noqa: E731
    tokens, mask, targets, weights, ids = map(grow, batch[:5])
    mask[-lacking:, 0], mask[-lacking:, 1:], weights[-lacking:], ids[-lacking:] = 1, 0, 0, -1
    return Batch(tokens, mask, targets, weights, ids, {name: grow(field) for name, field in batch.extra.items()})


def check_ids(batch: Batch, vocab_size: int, num_classes: int) -> Batch:
    """The batch itself, if all its ids and labels can be looked up.

    Raises:
        DataError: a token id is not in 0..vocab_size-1, or a target not in 0..num_classes-1.
    """
    for name, values, end in (("token id", batch.tokens, vocab_size), ("label", batch.targets, num_classes)):
        if values.size and (values.min() < 0 or values.max() >= end):
            place = tuple(int(i[0]) for i in np.nonzero((values < 0) | (values >= end)))
            example = int(batch.ids[place[0]])
            raise DataError(f"{name} {int(values[place])} of example {example}, expected 0..{end - 1}")
    return batch


def concat_ragged(sequences: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All sequences one after the other, and the length of each: what `cut` takes apart."""
    empty = np.zeros(0, np.int32)
    return np.concatenate([empty, *sequences]), np.array([len(one) for one in sequences], np.int64)


def split_ragged(joined: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """The sequences that `join` put together."""
    return np.split(joined, np.cumsum(lengths)[:-1])
