"""The interface between data sets and training: batches, iterators over them that can be resumed, and the task.

Sequences are padded to batches here, and the ids of a batch are checked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeVar

import numpy as np

from mlxlab.errors import ConfigError, DataError
from mlxlab.files.untrusted import ShapeError, validate

NO_CURRICULUM = "alpha of the curriculum: expected data/order=curriculum"
FOLDS = "folds"  # auxiliary array (B,): the fold whose network does not learn from the row
MULTIPLE = 8  # lengths are rounded up to it, for fewer shapes to compile

T = TypeVar("T")
State = dict[str, object]  # a position as JSON
TaskKind = Literal["classification", "multi_label", "regression", "language_modelling"]


class Batch(NamedTuple):
    """B examples of T tokens, as NumPy arrays. Shorter examples are padded on the right."""

    tokens: np.ndarray  # (B, T) int32
    # (B, T) int32: 0 is padding, k > 0 the k-th document of the row; bool if each row has one.
    segment_ids: np.ndarray
    # int32: (B,) classes, or (B, T) tokens; float32: (B, L) 0 or 1 for each label, or (B,) numbers.
    targets: np.ndarray
    loss_weights: np.ndarray  # float32 in the shape of `targets`; 0 is not a target
    example_ids: np.ndarray  # (B,) int64: the same number in every epoch
    aux: dict[str, np.ndarray] = {}  # auxiliary arrays that a loss needs, by name: (B, ...)


class BatchIterator(Protocol):
    """An endless stream of training batches, one epoch per iteration, whose position can be saved and restored.

    The order is a function of (seed, epoch). The position is that of the batch last yielded: with threads too, a batch
    that was prepared but not yet yielded does not count as used. Wrappers (prefetching, repetition) implement all of
    this too, so that callers need not know which kind they hold.

    One that measures which tokens it served has `order_metrics() -> dict[str, float]`: those of the run up to the batch
    last yielded, empty where they are not measured. One with a curriculum has `set_alpha`, see `set_curriculum_alpha`.
    """

    def __iter__(self) -> Iterator[Batch]:
        """Yields the rest of the current epoch; afterwards the position is the start of the next epoch.

        Raises:
            DataError: the data is malformed, has changed since the run began, or an epoch of it has no batch.
        """

    @property
    def epoch(self) -> int:
        """The epoch of the next batch, from 0."""

    @property
    def at_epoch_start(self) -> bool:
        """True if the next batch is the first of its epoch."""

    @property
    def batch_size(self) -> int:
        """Rows of a full batch, summed over all processes."""

    @property
    def batches_per_epoch(self) -> int | None:
        """Batches per epoch: an estimate where a stream cannot count them, None where it cannot estimate either."""

    @property
    def tokens_per_batch(self) -> int | None:
        """Tokens of a full batch, or None where batches differ in length."""

    @property
    def skipped_records(self) -> int:
        """Malformed records that were skipped so far, each counted once; 0 where none may be."""

    def resize(self, batch_size: int) -> None:
        """Changes the size of later batches, losing and repeating no example."""

    def state_dict(self) -> State:
        """The position after the batch last yielded."""

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Moves to a saved position of any batch size without replay; DataError if it is malformed or of other data."""


def set_curriculum_alpha(data: BatchIterator, alpha: float) -> None:
    """Sets the alpha of the curriculum, from 0 to 1, from the next batch on; ConfigError if `data` has none."""
    if not hasattr(data, "set_alpha"):
        raise ConfigError(NO_CURRICULUM)
    data.set_alpha(alpha)


@dataclass(frozen=True)
class Task:
    """The task that the batches pose."""

    kind: TaskKind
    # C classes, L labels of which several may hold (multi_label), 1 number, or the vocabulary.
    num_classes: int
    labels: tuple[str, ...] = ()  # names of the classes or labels
    masked: bool = False  # a language model predicts masked tokens, not the next one
    token_bytes: tuple[int, ...] = ()  # bytes of UTF-8 by token id, for bits per byte
    # Regression: the targets are (value - mean) / deviation of the training values.
    target_mean: float = 0.0
    target_deviation: float = 1.0
    # The id of the token between two texts of an example; None for single texts.
    pair_separator: int | None = None
    positive_class: int = 1  # Precision, recall and F1 describe this one of two classes.

    @property
    def decided_labels(self) -> tuple[str, ...]:
        """The labels of which each is decided by its probability alone: all, or the positive one of two classes."""
        if self.kind == "classification" and self.num_classes == 2:
            return self.labels[self.positive_class :][:1]
        return self.labels if self.kind == "multi_label" else ()


def check_position(position: object, shape: type[T]) -> T:
    """`position` as `shape`, a type that `validate` knows, or a DataError: a checkpoint may come from anyone."""
    try:
        return validate(position, shape)
    except ShapeError as error:
        raise DataError(f"the saved position is malformed: {error}") from None


def load_position(state: Mapping[str, object], shape: type[T], fingerprint: str) -> T:
    """`state` as `shape`, a `TypedDict` with a `fingerprint`; DataError if it is malformed or of other data."""
    position = check_position(dict(state), shape)
    if state["fingerprint"] != fingerprint:
        got = state["fingerprint"]
        raise DataError(
            f"the saved position is in other data: expected fingerprint {fingerprint}, got {got}"
        )
    return position


def pad(
    sequences: Sequence[np.ndarray], pad_id: int, max_length: int, length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens (B, T) and mask (B, T), int32, padded on the right to `length`.

    If that is None, to the longest sequence rounded up to a multiple of 8; sequences are truncated to `max_length`.
    """
    if length is None:
        longest = max([1, *map(len, sequences)])
        length = min(-(-longest // MULTIPLE) * MULTIPLE, max_length)
    used = [sequence[:length] for sequence in sequences]
    is_real = np.arange(length) < np.array([len(each) for each in used])[:, None]
    tokens = stack(used, length, pad_id).astype(np.int32, copy=False)
    return tokens, is_real.astype(np.int32)


def stack(arrays: Sequence[np.ndarray], length: int, fill: int) -> np.ndarray:
    """The arrays as rows of `length` values, padded on the right: (B, length)."""
    sizes = np.array([len(array) for array in arrays])
    values = np.concatenate(arrays)
    stacked = np.full((len(arrays), length), fill, values.dtype)
    stacked[np.arange(length) < sizes[:, None]] = values
    return stacked


def pad_rows(batch: Batch, rows: int) -> Batch:
    """Adds rows up to `rows`, to avoid a new shape. They have id -1, one token and weight 0."""
    missing = rows - len(batch.example_ids)
    if missing <= 0:
        return batch
    index = np.arange(rows)
    index[-missing:] = 0  # They repeat the first one.
    tokens, segment_ids, targets, weights, ids = (field[index] for field in batch[:5])
    segment_ids[-missing:] = 0
    segment_ids[-missing:, 0] = 1
    weights[-missing:] = 0
    ids[-missing:] = -1
    aux = {name: field[index] for name, field in batch.aux.items()}
    return Batch(tokens, segment_ids, targets, weights, ids, aux)


def check_ids(batch: Batch, vocab_size: int, num_classes: int) -> Batch:
    """`batch`, or a DataError if a token id or a class of it is out of range, or a target is NaN or infinite.

    MLX has no bounds checks, and a NaN of weight 0 would still reach the gradient.
    """
    _check_range(batch, "token id", batch.tokens, vocab_size)
    if batch.targets.dtype.kind == "i":
        _check_range(batch, "label", batch.targets, num_classes)
    elif not np.isfinite(batch.targets).all():
        row = np.argwhere(~np.isfinite(batch.targets))[0, 0]
        raise DataError(f"target of example {batch.example_ids[row]}: expected a finite number")
    return batch


def _check_range(batch: Batch, name: str, values: np.ndarray, end: int) -> None:
    is_outside = (values < 0) | (values >= end)
    if is_outside.any():
        index = tuple(np.argwhere(is_outside)[0])
        example = batch.example_ids[index[0]]
        raise DataError(f"{name} {values[index]} of example {example}: expected 0..{end - 1}")
