"""Pads sequences to one batch, and checks every id and label: MLX has no bounds checks."""

from collections.abc import Sequence

import numpy as np

from mlxlab.data.batch import Batch
from mlxlab.errors import DataError

MULTIPLE = 8  # lengths are rounded up to it, for fewer shapes to compile


def pad(
    sequences: Sequence[np.ndarray], pad_id: int, max_length: int, length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (B, T) and mask (B, T), int32, padded on the right to `length`.

    If that is None, to the longest sequence rounded up to a multiple of 8; sequences are truncated to `max_length`.
    """
    if length is None:
        longest = max(map(len, sequences), default=0)
        length = min(-(-max(longest, 1) // MULTIPLE) * MULTIPLE, max_length)
    tokens = np.full((len(sequences), length), pad_id, np.int32)
    mask = np.zeros((len(sequences), length), np.int32)
    for row, sequence in enumerate(sequences):
        used = min(len(sequence), length)
        tokens[row, :used] = sequence[:used]
        mask[row, :used] = 1
    return tokens, mask


def pad_rows(batch: Batch, rows: int) -> Batch:
    """Adds rows up to `rows`, to avoid a new shape. They have id -1, one token and weight 0."""
    missing = rows - len(batch.example_ids)
    if missing <= 0:
        return batch

    def grow(field: np.ndarray) -> np.ndarray:
        return np.concatenate([field, np.repeat(field[:1], missing, axis=0)])

    tokens, mask, targets, weights, ids = map(grow, batch[:5])
    mask[-missing:, 0], mask[-missing:, 1:], weights[-missing:], ids[-missing:] = 1, 0, 0, -1
    return Batch(tokens, mask, targets, weights, ids, {name: grow(field) for name, field in batch.aux.items()})


def check_ids(batch: Batch, vocab_size: int, num_classes: int) -> Batch:
    """Returns `batch` if all its token ids and labels are in range.

    Raises:
        DataError: a token id is not in 0..vocab_size-1, or a target not in 0..num_classes-1.
    """
    for name, values, end in (("token id", batch.tokens, vocab_size), ("label", batch.targets, num_classes)):
        if values.size and (values.min() < 0 or values.max() >= end):
            index = tuple(int(i[0]) for i in np.nonzero((values < 0) | (values >= end)))
            example = int(batch.example_ids[index[0]])
            raise DataError(f"{name} {int(values[index])} of example {example}: expected 0..{end - 1}")
    return batch
