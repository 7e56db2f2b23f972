"""The soft-target cache: log-probabilities of the k most likely classes, and of all other classes together.

Rows are keyed by content, so the teachers are queried once for a text, in whatever batch, epoch or run it occurs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import mlx.core as mx
import numpy as np
import xxhash

from mlxlab.constraints import Size
from mlxlab.data.batch import Batch
from mlxlab.distillation.divergence import MIN_PROBABILITY
from mlxlab.distillation.soft_target_store import SoftTargetStore
from mlxlab.errors import ConfigError
from mlxlab.ops.kl_divergence import log_softmax

VALUES, CLASSES = "teacher", "teacher_classes"  # names in `Batch.aux`


class TeacherCache:
    """Soft targets of the teachers by the content of a row.

    Args:
        top_k: classes stored per target; with all of them, the logits are stored.
        dtype: of the stored values.
        folder: one for these teachers, data and options only.
        num_classes: of the task.

    Raises:
        CannotCreateError: the folder cannot be created.
    """

    def __init__(self, top_k: Size, dtype: Literal["float16", "float32"], *, folder: Path, num_classes: int) -> None:
        self.num_classes, self.dtype = num_classes, np.dtype(dtype)
        self.top_k = top_k if top_k < num_classes else 0  # 0: all classes
        self.width = self.top_k + 1 if self.top_k else num_classes
        self.classes_dtype = np.dtype(np.uint16 if num_classes <= 1 << 16 else np.int32)
        self.store = SoftTargetStore(folder)
        self.hits = self.misses = 0  # rows

    def soft_targets(self, batch: Batch, compute: Callable[[], mx.array]) -> dict[str, np.ndarray]:
        """Soft targets of a batch, as arrays for `Batch.aux`.

        What was stored first is what is used: a resumed run trains on the same values, bit for bit.

        Args:
            compute: returns the logits (B, ..., C); called if a row is not stored.
        """
        shape = batch.targets.shape
        lengths = list(map(_length, batch.segment_ids))
        counts = lengths if len(shape) > 1 else [1] * len(lengths)  # targets per row; padding is not stored
        keys = list(map(row_key, batch.tokens, batch.segment_ids))
        values = np.zeros((*shape, self.width), self.dtype)
        classes = np.zeros((*shape, self.top_k), np.int32)
        missing = [row for row, key in enumerate(keys) if not self._load(key, values, classes, row, counts[row])]
        self.hits, self.misses = self.hits + len(keys) - len(missing), self.misses + len(missing)
        if missing:
            new_values, new_classes = self._compress(compute())
            for row in missing:
                at = _index(row, counts[row], shape)
                values[at], classes[at] = new_values[at], new_classes[at]
                self.store.put(keys[row], new_values[at].tobytes() + new_classes[at].tobytes())
        return {VALUES: values} | ({CLASSES: classes} if self.top_k else {})

    def flush(self) -> None:
        """Waits until every soft target is on disk."""
        self.store.flush()

    def describe(self) -> str:
        """The number of hits, and what storing k classes loses against the full distribution."""
        counters = self.store.counters
        stored = f"top {self.top_k} of {self.num_classes}" if self.top_k else "all classes"
        targets, others, nats = (counters.get(name, 0.0) for name in ("targets", "others", "nats"))
        return (
            f"teacher cache: {stored} in {self.dtype}; {self.hits} rows found, {self.misses} computed;"
            f" {100 * others / max(targets, 1):.2g} % of the probability is in the other classes,"
            f" {nats / max(targets, 1):.2g} nats per target are lost"
        )

    def _load(self, key: bytes, values: np.ndarray, classes: np.ndarray, row: int, count: int) -> bool:
        """Copies the record of a row into the arrays; False if none is stored, or one that cannot be right."""
        record = self.store.get(key)
        if record is None:
            return False
        split = count * self.width * self.dtype.itemsize
        if len(record) != split + count * self.top_k * self.classes_dtype.itemsize:
            self.store.discard(key, f"{len(record)} bytes for {count} targets")
            return False
        stored = np.frombuffer(record[:split], self.dtype).reshape(count, self.width)
        stored_classes = np.frombuffer(record[split:], self.classes_dtype).reshape(count, self.top_k)
        if np.isnan(stored).any() or not ((stored_classes >= 0) & (stored_classes < self.num_classes)).all():
            self.store.discard(key, "values out of range")  # MLX has no bounds checks
            return False
        at = _index(row, count, values.shape[:-1])
        values[at], classes[at] = stored, stored_classes
        return True

    def _compress(self, logits: mx.array) -> tuple[np.ndarray, np.ndarray]:
        """Logits (..., C) as stored: values (..., k + 1) and classes (..., k). Counts what that loses."""
        if not self.top_k:
            values = np.array(logits).astype(self.dtype)
            return values, np.zeros((*values.shape[:-1], 0), self.classes_dtype)
        log_p = log_softmax(logits)
        classes = mx.argpartition(-log_p, kth=self.top_k - 1, axis=-1)[..., : self.top_k]
        likeliest = mx.take_along_axis(log_p, classes, axis=-1)
        others = mx.maximum(1 - mx.exp(likeliest).sum(axis=-1, keepdims=True), MIN_PROBABILITY)
        values = np.array(mx.concatenate([likeliest, mx.log(others)], axis=-1))
        stored = values.astype(self.dtype)
        # KL of the full distribution to what a reader of the cache can know: all other classes equally likely.
        known = stored.astype(np.float32)
        known[..., -1] -= np.log(self.num_classes - self.top_k)
        entropy = float((mx.exp(log_p) * log_p).sum())
        nats = entropy - float((np.exp(values) * known).sum())
        self.store.add_counters(targets=values[..., 0].size, others=float(others.sum()), nats=nats)
        return stored, np.array(classes).astype(self.classes_dtype)


def parse_cache_options(options: Mapping[str, int | str]) -> tuple[int, Literal["float16", "float32"]]:
    """top_k and dtype of `trainer.distillation.teacher_cache`.

    Raises:
        ConfigError: an unknown option, or a value out of range.
    """
    top_k, dtype = options.get("top_k", 100), options.get("dtype", "float16")
    unknown = ", ".join(sorted(options.keys() - {"top_k", "dtype"}))
    if unknown or type(top_k) is not int or top_k < 1 or dtype not in ("float16", "float32"):
        raise ConfigError(
            "trainer.distillation.teacher_cache: expected {top_k: a number >= 1, dtype: float16 or float32}, got"
            f" {unknown or f'top_k={top_k}, dtype={dtype}'}"
        )
    return top_k, "float16" if dtype == "float16" else "float32"


def row_key(tokens: np.ndarray, mask: np.ndarray) -> bytes:
    """128-bit hash of the tokens and document numbers of a row, without its padding."""
    length = _length(mask)
    return xxhash.xxh3_128_digest(tokens[:length].astype(np.int32).tobytes() + mask[:length].astype(np.int32).tobytes())


def _index(row: int, count: int, shape: tuple[int, ...]) -> tuple[slice, ...] | tuple[int, slice]:
    """The targets of a row: its first `count` tokens, or the row itself where it has one target, as (count, ...)."""
    return (row, slice(count)) if len(shape) > 1 else (slice(row, row + 1),)


def _length(mask: np.ndarray) -> int:
    """Tokens up to the last one that is not padding."""
    real = np.flatnonzero(mask)
    return int(real[-1]) + 1 if len(real) else 0
