"""What the teachers said, kept on disk: the log-probabilities of the likeliest k classes, and of all others together.

A row is known by its content, so the same text is asked once, in whatever batch, epoch or run it comes.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import mlx.core as mx
import numpy as np
import xxhash

from mlxlab.constraints import Size
from mlxlab.data.batch import Batch
from mlxlab.distillation.cache_shards import SoftTargetStore
from mlxlab.distillation.divergence import TINY
from mlxlab.errors import ConfigError
from mlxlab.ops.kl_divergence import log_softmax

VALUES, CLASSES = "teacher", "teacher_classes"  # names in `Batch.extra`


class TeacherCache:
    """Answers of the teachers by the content of the row.

    Args:
        top_k: classes kept per target; with all of them the logits themselves are kept.
        dtype: in which they are kept.
        folder: one for these teachers, data and settings alone.
        num_classes: of the task.

    Raises:
        CannotCreateError: the folder cannot be made.
    """

    def __init__(self, top_k: Size, dtype: Literal["float16", "float32"], *, folder: Path, num_classes: int) -> None:
        self.num_classes, self.dtype = num_classes, np.dtype(dtype)
        self.top_k = top_k if top_k < num_classes else 0  # 0: all of them
        self.width = self.top_k + 1 if self.top_k else num_classes
        self.classes_dtype = np.dtype(np.uint16 if num_classes <= 1 << 16 else np.int32)
        self.shards = SoftTargetStore(folder)
        self.found = self.asked = 0  # rows

    def soft_targets(self, batch: Batch, ask: Callable[[], mx.array]) -> dict[str, np.ndarray]:
        """The answers for a batch as arrays that go along with it; `ask` gives logits if a row is not known yet.

        Whoever goes on after a kill gets the very same answers: what was kept first is what is used.
        """
        keys = list(map(row_key, batch.tokens, batch.mask))
        records = [self.shards.get(key) for key in keys]
        missing = [row for row, record in enumerate(records) if record is None]
        self.found, self.asked = self.found + len(keys) - len(missing), self.asked + len(missing)
        if missing:
            lengths = list(map(_length, batch.mask)) if batch.targets.ndim > 1 else None
            for row, record in self._asked(ask(), missing, lengths):
                records[row] = record
                self.shards.put(keys[row], record)
        return self._joined([record or b"" for record in records], batch.targets.shape)

    def flush(self) -> None:
        """Waits until all that was asked is on disk."""
        self.shards.flush()

    def describe(self) -> str:
        """What keeping k classes costs, measured against the full distribution."""
        sums, kept = self.shards.sums, f"top {self.top_k} of {self.num_classes}" if self.top_k else "all classes"
        targets, others, nats = (sums.get(name, 0.0) for name in ("targets", "others", "nats"))
        return (
            f"teacher cache: {kept} in {self.dtype}; {self.found} rows found, {self.asked} asked;"
            f" {100 * others / max(targets, 1):.2g} % of the mass is in the others,"
            f" {nats / max(targets, 1):.2g} nats per target are lost"
        )

    def _asked(self, logits: mx.array, rows: list[int], lengths: list[int] | None) -> Iterator[tuple[int, bytes]]:
        values, classes = self._kept(logits)
        for row in rows:
            cut = slice(lengths[row]) if lengths else slice(None)  # padding is not kept
            yield row, values[row, cut].tobytes() + (classes[row, cut].tobytes() if self.top_k else b"")

    def _kept(self, logits: mx.array) -> tuple[np.ndarray, np.ndarray]:
        """Logits (..., C) as they are kept: values (..., k + 1) and classes (..., k). Notes what that loses."""
        if not self.top_k:
            return np.array(logits).astype(self.dtype), np.zeros(0)
        log_p = log_softmax(logits)
        classes = mx.argpartition(-log_p, kth=self.top_k - 1, axis=-1)[..., : self.top_k]
        chosen = mx.take_along_axis(log_p, classes, axis=-1)
        others = mx.maximum(1 - mx.exp(chosen).sum(axis=-1, keepdims=True), TINY)
        values = np.array(mx.concatenate([chosen, mx.log(others)], axis=-1))
        kept = values.astype(self.dtype)
        # KL of the full distribution to what a reader of the cache can know: the others all alike.
        believed = kept.astype(np.float32)
        believed[..., -1] -= np.log(self.num_classes - self.top_k)
        entropy = (mx.exp(log_p) * log_p).sum()
        lost = float(entropy) - float((np.exp(values) * believed).sum())
        self.shards.note(targets=values[..., 0].size, others=float(others.sum()), nats=lost)
        return kept, np.array(classes).astype(self.classes_dtype)

    def _joined(self, records: list[bytes], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """Records of rows as arrays (*shape, ...), zeros where a row has padding."""
        values = np.zeros((*shape, self.width), self.dtype)
        classes = np.zeros((*shape, self.top_k), np.int32)
        size = self.width * self.dtype.itemsize
        for row, record in enumerate(records):
            count = len(record) // (size + self.top_k * self.classes_dtype.itemsize)
            at = (row, slice(count)) if len(shape) > 1 else (slice(row, row + 1),)
            values[at] = np.frombuffer(record, self.dtype, count * self.width).reshape(count, self.width)
            if self.top_k:
                likeliest = np.frombuffer(record, self.classes_dtype, count * self.top_k, count * size)
                classes[at] = likeliest.reshape(count, self.top_k)
        return {VALUES: values} | ({CLASSES: classes} if self.top_k else {})


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


def row_key(tokens: np.ndarray, mask: np.ndarray) -> str:
    """A row by its content: the tokens and documents, without the padding behind them."""
    length = _length(mask)
    content = tokens[:length].astype(np.int32).tobytes() + mask[:length].astype(np.int32).tobytes()
    return xxhash.xxh3_128_hexdigest(content)


def _length(mask: np.ndarray) -> int:
    """Places up to the last real one."""
    real = np.flatnonzero(mask)
    return int(real[-1]) + 1 if len(real) else 0
